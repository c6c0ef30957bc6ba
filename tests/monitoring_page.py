"""``python -m tests.monitoring_page``: the tables of metrics in docs/monitoring.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedgrpo.federation.deployment.operator.runs.watch import shown as operators
from fedgrpo.federation.deployment.site.watch import shown as sites
from fedgrpo.report.watch.metrics import Kind

PAGE = Path(__file__).parents[1] / "docs" / "monitoring.md"
_PLACES = {"Of the operator:": operators.KINDS, "Of a site:": sites.KINDS}


def main() -> None:
    """Write the page again."""
    PAGE.write_text(page())


def page() -> str:
    """The page with its tables as they must be."""
    text = PAGE.read_text()
    for head, kinds in _PLACES.items():
        text = re.sub(
            rf"{head}\n\n.*?\n\n(?=\S)", f"{head}\n\n{table(kinds)}\n", text, flags=re.DOTALL
        )
    return text


def table(kinds: Sequence[Kind]) -> str:
    """A row a metric."""
    rows = "".join(
        f"| `{kind.name}` | {', '.join(f'`{label}`' for label in kind.labels)} | {kind.about} |\n"
        for kind in kinds
    )
    return f"| metric | labels | |\n|---|---|---|\n{rows}"


if __name__ == "__main__":
    main()
