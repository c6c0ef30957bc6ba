"""Pages of docs whose tables a script writes, between the marks that name them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Tables = Mapping[str, Callable[[], Iterable[str]]]
"""Lines of each table, by its name."""


def filled(page: Path, tables: Tables) -> str:
    """The page with these tables in their places."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables.items():
        block = f"<!-- {name} -->\n" + "\n".join(lines()) + f"\n<!-- end of {name} -->"
        pattern = re.compile(f"<!-- {name} -->\n.*?<!-- end of {name} -->", re.DOTALL)
        text, found = pattern.subn(lambda _, block=block: block, text)  # type: ignore[misc]
        if found != 1:
            raise SystemExit(f"{page.name} has {found} places for the table {name!r}, not one")
    return text


def write(page: Path, tables: Tables, about: str, then: Callable[[], None] = lambda: None) -> None:
    """A script's main: write the page and what comes ``then``; with ``--check`` neither, and fail
    if the page would change.
    """
    parser = argparse.ArgumentParser(description=about.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would")
    check, new = parser.parse_args().check, filled(page, tables)
    if check:
        sys.exit(
            f"{page} is not what the rows say: run without --check"
            if new != page.read_text(encoding="utf-8")
            else 0
        )
    page.write_text(new, encoding="utf-8")
    then()
