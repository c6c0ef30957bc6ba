"""Training alone as it is shown: the picture, the lines of the console, the closing table."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.records import Sample, to_json
from fedgrpo.report import LiveView, RunWriter, follow
from fedgrpo.report.console.completions import completions_table
from fedgrpo.report.console.dry_run import histogram
from fedgrpo.report.console.summary_table import print_summary
from fedgrpo.report.page import render
from fedgrpo.report.plots import draw, plot_run
from fedgrpo.report.reader import read_run
from fedgrpo.report.records import RewardSummary, SampleRow, best_evaluation
from fedgrpo.report.wording import plain_line
from tests.report.alone import SUMMARY, step, steps, write


@pytest.mark.slow
def test_the_picture_has_its_size_and_ink_in_every_panel(tmp_path: Path) -> None:
    pixels = imread(plot_run(write(tmp_path)))[..., :3]
    assert pixels.shape[:2] == (1000, 1600)
    panels = (pixels[150:500, :800], pixels[150:500, 800:], pixels[550:, :800], pixels[550:, 800:])
    for panel in panels:
        assert np.mean(np.ptp(panel, axis=-1) > 0.1) > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 500], ids=["before the first", "one", "many"])
def test_any_number_of_steps_can_be_drawn_without_a_warning(count: int) -> None:
    with warnings.catch_warnings(action="error"):
        assert len(draw(steps(count), None).axes) >= 4


def test_the_picture_says_what_was_learnt_and_names_functions_shortly() -> None:
    figure = draw(steps(40), SUMMARY)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "Held-out reward: sampled 0.20 → 0.60, greedy 0.30 → 0.70" in titles
    assert {"Entropy, nats a token", "Completion length, tokens", "Shares"} <= set(titles)
    words = " ".join(text.get_text() for text in figure.texts)
    assert "no privacy" in words
    assert "best held-out 0.65 after step 30" in words
    labels = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
    assert "exact_match" in labels
    assert "best" in labels


def test_what_one_of_k_answers_solves_is_told_before_and_after(tmp_path: Path) -> None:
    found = steps(40)
    found[0] = replace(found[0], pass_at={"1": 0.2, "128": 0.7})
    found[-1] = replace(found[-1], pass_at={"1": 0.6, "128": 0.65})
    titles = [axes.get_title(loc="left") for axes in draw(found, None).axes]
    assert "Held-out, solved by one of k" in titles
    reward = RewardSummary.between(found[0], found[-1])
    assert reward.pass_at["128"] == {"start": 0.7, "end": 0.65}
    console = Console(file=io.StringIO(), width=100)
    print_summary(replace(SUMMARY, reward=reward), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "pass@1 " in printed
    assert "0.700 -> 0.650  (-0.050)" in printed
    folder = write(tmp_path, summary=False)
    (folder / "metrics.jsonl").write_text("".join(f"{to_json(row)}\n" for row in found))
    page = render([read_run(folder)], [None])
    assert "Held-out pass@128" in page
    assert "0.700 → 0.650" in page
    assert "Solved by one of k answers" in page


def test_a_run_without_a_row_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run with a finished round" in result.output


def test_a_line_that_is_no_row_is_refused_by_file(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("[1]\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 42"):
        plot_run(tmp_path)


@pytest.mark.slow
def test_the_report_command_prints_the_summary_and_draws_again(tmp_path: Path) -> None:
    write(tmp_path)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.replace("│", " ").split())
    assert "0.200 -> 0.600 (+0.400), 0.650 at the best step" in words
    assert "warning at step 12: Too hot. Cool it." in words
    assert "as private as the prompts" in words
    assert (tmp_path / "report.png").exists()
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_report_of_unfinished_training_tells_how_far_it_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(write(tmp_path, summary=False))])
    assert result.exit_code == 0, result.output
    assert "Not finished: running after 40 of 40 steps; the same command resumes" in result.output


def test_the_best_adapter_is_the_earliest_with_the_largest_sampled_reward() -> None:
    rows = [step(10), step(11), step(20), step(20), step(0)]
    assert best_evaluation(rows) is rows[2]


def test_a_line_means_over_the_steps_that_led_to_it() -> None:
    rows = [step(18), step(19), step(20, tokens_per_second=0.0)]
    line = plain_line(rows[-1], rows, 120, since=18)
    assert line.startswith("step  20/120  reward 0.395  KL to start 0.400")
    assert "held-out 0.400 sampled, 0.500 greedy" in line
    # The second step sampled nothing: 120 tokens in one second.
    assert "120 tokens/s" in line
    assert line.isascii()


def test_a_pipe_gets_a_line_an_evaluation_and_each_warning_once(tmp_path: Path) -> None:
    text = io.StringIO()
    follow(write(tmp_path, 20), 20, lambda: True, Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("step")] == [
        "step",
        "step 10/20",
        "step 20/20",
    ]
    assert lines.count("warning: Too hot. Cool it.") == 1
    assert len(lines) == 4


def test_a_terminal_shows_steps_and_what_they_measure(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=120)
    write(tmp_path, 20, summary=False)
    console.print(LiveView(tmp_path, 40))
    text = console.export_text()
    assert "20 of 40 steps" in text
    for figure in ("Reward", "Entropy", "Completion length", "Speed", "Held-out, sampled"):
        assert figure in text
    assert "Epsilon" not in text
    assert "Dropped nodes" not in text


SAMPLE = Sample(
    prompt=[{"role": "user", "content": "[red]why?"}],
    completion="[b]because",
    reward=1.5,
    rewards={"right": 1.0, "short": None},
)


def test_completions_are_shown_as_they_are_with_each_reward() -> None:
    text = io.StringIO()
    Console(file=text, width=120).print(completions_table([SampleRow(round=0, **vars(SAMPLE))]))
    shown = text.getvalue()
    assert "user: [red]why?" in shown
    assert "[b]because" in shown
    assert {"right", "short", "1.50", "1.00", "-"} <= set(shown.split())


def test_completions_are_followed_only_where_they_are_asked_for(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.samples(0, [SAMPLE])
    writer.row(step(0))
    for asked in (False, True):
        text = io.StringIO()
        console = Console(file=text, width=120)
        follow(tmp_path, 1, lambda: True, console, show_completions=asked)
        assert ("[b]because" in text.getvalue()) is asked


def test_a_histogram_counts_values_where_they_are_few_and_bins_where_they_are_many() -> None:
    few = histogram(np.array([0.0, 1.0, 1.0, np.nan, 0.5]))
    assert [(b.low, b.high, b.count) for b in few.bins] == [(0, 0, 1), (0.5, 0.5, 1), (1, 1, 2)]
    assert few.missing == 1
    many = histogram(np.arange(100.0))
    assert [b.count for b in many.bins] == [10] * 10
    assert histogram(np.full(3, np.nan)).bins == []
