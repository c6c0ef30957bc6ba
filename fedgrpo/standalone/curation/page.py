"""A site's own page of what was curated: counts, and histograms before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedgrpo.data.curation.checks import text_of
from fedgrpo.data.curation.curate import Curated
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.run_files import CURATION_PAGE
from fedgrpo.report.watch.page import style

BINS, MOST_VALUES = 12, 12


@dataclass(frozen=True)
class Bar:
    """A bin: its label, and how many rows are in it before and after."""

    label: str
    before: int
    after: int


@dataclass(frozen=True)
class Histogram:
    """A figure of rows."""

    title: str
    bars: Sequence[Bar]

    @property
    def most(self) -> int:
        """Rows of the fullest bin."""
        return max((bar.before for bar in self.bars), default=1) or 1


def write_page(made: Curated) -> Path:
    """Write the page into the folder, for its owner alone: it counts private rows."""
    pages = Environment(
        loader=PackageLoader("fedgrpo.standalone.curation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = pages.get_template("page.html.j2").render(
        manifest=made.manifest,
        style=style(),
        histograms=histograms(made),
    )
    replace_file(made.folder / CURATION_PAGE, text.encode(), mode=0o600)
    return made.folder / CURATION_PAGE


def histograms(made: Curated) -> list[Histogram]:
    """Lengths, difficulty where it was asked for, and each column of few values."""
    rows, kept = made.rows, set(made.verdicts.kept(len(made.rows)))
    lengths = {place: float(len(text_of(row.prompt))) for place, row in enumerate(rows)}
    found = [Histogram("Length, characters", binned(lengths, kept))]
    if made.solved:
        found.append(Histogram("Share of answers that are correct", binned(made.solved, kept)))
    person = made.manifest.rules["person"]
    for name in dict.fromkeys(name for row in rows for name in row.columns if name != person):
        values = {place: str(row.columns.get(name, "")) for place, row in enumerate(rows)}
        if 1 < len(set(values.values())) <= MOST_VALUES:
            found.append(Histogram(f"Column {name}", counted(values, kept)))
    return found


def binned(values: Mapping[int, float], kept: set[int]) -> list[Bar]:
    """Equal bins from the least value to the largest."""
    low, high = min(values.values()), max(values.values())
    width = (high - low) / BINS or 1.0
    place = {at: min(BINS - 1, int((value - low) / width)) for at, value in values.items()}
    before, after = Counter(place.values()), Counter(b for at, b in place.items() if at in kept)
    bins = range(BINS) if high > low else range(1)
    form = ".2g" if high < 10 else ".0f"  # Shares, or characters.
    return [Bar(f"{low + i * width:{form}}", before[i], after[i]) for i in bins]


def counted(values: Mapping[int, str], kept: set[int]) -> list[Bar]:
    """A bar for each value."""
    before = Counter(values.values())
    after = Counter(value for at, value in values.items() if at in kept)
    return [Bar(value or "(none)", before[value], after[value]) for value in sorted(before)]
