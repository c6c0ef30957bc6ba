"""For mkdocs: links that leave docs/ for the repository's other files, which are no pages."""

from __future__ import annotations

import re
from typing import Any

_OUT = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep the words of such a link and leave out where it leads."""
    return _OUT.sub(r"\1", markdown)
