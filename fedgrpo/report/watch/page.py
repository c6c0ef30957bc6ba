"""A page in parts: facts, tables, and a picture. Whatever is on it is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from fedgrpo.report.watch.problem import Problem

Tone = Literal["", "good", "bad", "soft"]


@dataclass(frozen=True)
class Cell:
    """A text, and how it is meant."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Facts:
    """Labels with what is so.

    Attributes
    ----------
    title:
        Above them.
    pairs:
        From the most important.
    """

    title: str
    pairs: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes
    ----------
    title:
        Above it.
    columns:
        Their heads.
    rows:
        As many cells in each.
    empty:
        What is said where there are no rows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    empty: str


@dataclass(frozen=True)
class Page:
    """What is shown.

    Attributes
    ----------
    title, sentence:
        Whose page it is, and how things stand.
    problems:
        What somebody should do.
    parts:
        From the top.
    picture:
        What the picture shows; empty where there is none.
    time:
        Unix time, in seconds, of the look.
    """

    title: str
    sentence: Cell
    problems: Sequence[Problem]
    parts: Sequence[Facts | Table]
    picture: str
    time: float

    @property
    def written(self) -> str:
        """When, in words."""
        return datetime.fromtimestamp(self.time, UTC).strftime("%d %B %Y, %H:%M:%S UTC")


def render(page: Page) -> str:
    """Write a page as HTML."""
    return _template().render(page=page)


@cache
def style() -> str:
    """The page's style sheet."""
    return files(__package__).joinpath("style.css").read_text("utf-8")


@cache
def _template() -> Template:
    pages = Environment(
        loader=PackageLoader("fedgrpo.report.watch", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("page.html.j2")
