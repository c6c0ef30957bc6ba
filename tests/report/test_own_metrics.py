"""Metrics of users' own are shown wherever the built-in ones are, without their code."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fedgrpo.ground.records import from_json, to_json
from fedgrpo.report import LiveView, RoundRow, RunWriter
from fedgrpo.report.page import render
from fedgrpo.report.plots import draw
from fedgrpo.report.reader import read_run
from fedgrpo.report.trackers import figures
from fedgrpo.report.wording import plain_line
from tests.report.alone import step
from tests.report.runs import START, SUMMARY, round_row

OWN = {"metrics/short_share(longest=5)": 0.25}


def with_own(row: RoundRow) -> RoundRow:
    return from_json(RoundRow, to_json(replace(row, metrics={**row.metrics, **OWN})))


ROWS = {
    "federation": [START, with_own(round_row(1)), with_own(round_row(2))],
    "training alone": [with_own(step(1)), with_own(step(2))],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_console_picture_trackers_and_page_show_them(tmp_path: Path, rows: list[RoundRow]) -> None:
    writer = RunWriter(tmp_path / "run")
    for row in rows:
        writer.row(row)
    console = Console(file=StringIO(), width=120)
    console.print(LiveView(tmp_path / "run", 3))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "short_share(longest=5)" in shown
    assert "0.250" in shown
    assert "short_share(longest=5) 0.250" in plain_line(rows[-1], rows, 3)
    axes = next(a for a in draw(rows, None).axes if "Your own metrics" in a.get_title("left"))
    assert axes.get_legend_handles_labels()[1] == ["short_share(longest=5)"]
    assert figures(rows[-1])["fedgrpo/metrics/short_share(longest=5)"] == 0.25


def test_the_page_has_a_chart_of_each(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    for row in ROWS["federation"]:
        writer.row(row)
    writer.summary(SUMMARY)
    assert "Metric: short_share(longest=5)" in render([read_run(tmp_path)], [None])


def test_a_run_without_any_looks_as_it_did() -> None:
    rows = [START, round_row(1), round_row(2)]
    assert all("Your own" not in axes.get_title("left") for axes in draw(rows, None).axes)
