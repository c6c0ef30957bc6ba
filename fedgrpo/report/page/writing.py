"""From runs to a page: what stands in it, and where it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedgrpo.ground.files import replace_file
from fedgrpo.ground.run_files import COMPARISON, PAGE
from fedgrpo.report.console import warnings
from fedgrpo.report.figures import by_name, solved_within
from fedgrpo.report.page.charts import COLOURS, Shown, charts
from fedgrpo.report.page.drawing import draw_chart, draw_cohort, draw_phases
from fedgrpo.report.page.ledgers import CheckedLedger
from fedgrpo.report.page.promises import Promises, promises
from fedgrpo.report.reader import Run
from fedgrpo.report.records import SampleRow
from fedgrpo.report.wording import duration, number, prompt_words, unit_of
from fedgrpo.settings import Settings


def write_page(runs: Sequence[Run], ledgers: Sequence[CheckedLedger | None]) -> Path:
    """Write ``report.html`` of a run, or ``comparison.html`` of several, beside the first picture.

    The page shows held-out prompts with their completions: its owner alone may read it.

    Parameters
    ----------
    runs:
        At least one.
    ledgers:
        Of each run, None where it has none.

    Returns
    -------
    Path
        The page.
    """
    path = runs[0].path / (PAGE if len(runs) == 1 else COMPARISON)
    replace_file(path, render(runs, ledgers).encode(), mode=0o600)
    return path


def render(runs: Sequence[Run], ledgers: Sequence[CheckedLedger | None]) -> str:
    """The page as text."""
    shown = [
        Shown(name, run, ledger, colour)
        for name, run, ledger, colour in zip(_names(runs), runs, ledgers, cycle(COLOURS))
    ]
    pages = Environment(
        loader=PackageLoader("fedgrpo.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("page.html.j2").render(
        title=" and ".join(each.name for each in shown),
        columns=[_column(each) for each in shown],
        figures=_figures(shown),
        charts=[(chart, Markup(draw_chart(chart))) for chart in charts(shown)],
        settings=_settings([run.settings for run in runs]),
        version=version("fedgrpo"),
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


@dataclass(frozen=True)
class Column:
    """What stands about one run alone."""

    shown: Shown
    sentence: str
    finished: bool
    warnings: Sequence[str]
    promises: Promises
    completions: Sequence[tuple[str, SampleRow, SampleRow | None]]
    phases: str
    cohort: str


def _column(shown: Shown) -> Column:
    run = shown.run
    return Column(
        shown,
        _sentence(run),
        run.summary is not None,
        list(dict.fromkeys(warnings(run.rows))),
        promises(run, shown.ledger),
        list(_completions(run.samples)),
        Markup(draw_phases(run.rows)),
        "" if run.rows[-1].alone else Markup(draw_cohort(run.rows)),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Names of the folders, with as much of the path as tells them apart."""
    for depth in range(1, 1 + max(len(run.path.parts) for run in runs)):
        names = ["/".join(run.path.parts[-depth:]) for run in runs]
        if len(set(names)) == len({run.path for run in runs}):
            break
    return names


def _sentence(run: Run) -> str:
    """A run in a sentence."""
    rows, unit = run.rows, unit_of(run.rows)
    how = "on one machine, without a federation" if rows[-1].alone else "in a federation"
    count = rows[-1].round
    text = f"Trained {how} for {count} {unit}{'' if count == 1 else 's'}"
    state = run.status.state if run.status else "unknown"
    text += "." if run.summary else f" so far ({state})."
    measured = [row.sampled for row in rows if row.sampled is not None]
    if len(measured) > 1:
        moved = "rose" if measured[-1] > measured[0] else "went"
        text += (
            f" On prompts that nobody trained on, the mean reward {moved} from "
            f"{measured[0]:.2f} to {measured[-1]:.2f}."
        )
    return text


def _figures(shown: Sequence[Shown]) -> list[tuple[str, list[str]]]:
    """The table of figures: a label, and a value for each run, as far as any run has one."""
    columns = [dict(_facts(each)) for each in shown]
    labels = dict.fromkeys(label for column in columns for label in column)
    return [(label, [column.get(label, "–") for column in columns]) for label in labels]


def _facts(shown: Shown) -> Iterator[tuple[str, str]]:
    rows, summary = shown.rows, shown.run.summary
    yield "Length", f"{rows[-1].round} {unit_of(rows)}s"
    for label, way in (("sampled", "sampled"), ("greedy", "greedy")):
        values = [v for row in rows if (v := getattr(row, way)) is not None]
        if values:
            yield f"Held-out reward, {label}", f"{number(values[0])} → {number(values[-1])}"
    for name, line in by_name(rows, "held_out_by").items():
        yield f"Held-out, {name}", f"{number(line.values[0])} → {number(line.values[-1])}"
    for name, line in solved_within(rows).items():
        yield f"Held-out {name}", f"{number(line.values[0])} → {number(line.values[-1])}"
    if summary and summary.training:
        best = summary.training
        yield "Best adapter", f"after step {best.best_step}: {number(best.best)} sampled"
    if not rows[-1].alone:
        yield "Epsilon", number(rows[-1].epsilon, 2, missing="no differential privacy")
        yield "Clients lost", f"{sum(row.dropped for row in rows)} over all rounds"
        yield "Rounds without effect", str(sum(not row.applied for row in rows if row.round))
    else:
        yield "Epsilon", "no differential privacy"
    if summary:
        yield "Wall time", duration(summary.wall_s)
        yield "Version", f"fedgrpo {summary.version}"


def _completions(
    samples: Sequence[SampleRow],
) -> Iterator[tuple[str, SampleRow, SampleRow | None]]:
    """Each held-out prompt with its first and its last completion."""
    prompts = dict.fromkeys(prompt_words(sample.prompt) for sample in samples)
    for prompt in prompts:
        found = [each for each in samples if prompt_words(each.prompt) == prompt]
        yield prompt, found[0], found[-1] if found[-1].round != found[0].round else None


def _settings(trees: Sequence[Settings | None]) -> Mapping[str, list[tuple[str, list[Any]]]]:
    """Settings: those that are not the default or differ between the runs, and the others."""
    flats = [{} if tree is None else tree.to_run_config() for tree in trees]
    # What presets fill is set in a run's settings, and so in those that it is compared with.
    default = Settings.from_mapping(Settings().model_dump()).to_run_config()
    chosen: list[tuple[str, list[Any]]] = []
    others: list[tuple[str, list[Any]]] = []
    for key in (key for key in default if not key.startswith("run.") and any(flats)):
        values = [flat.get(key, "–") for flat in flats]
        changed = any(value != default[key] for value in values)
        (chosen if changed else others).append((key, values))
    return {"chosen": chosen, "others": others}
