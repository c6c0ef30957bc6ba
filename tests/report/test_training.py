"""Training as it is shown: the picture, the rows of the console, the closing table."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.ground.errors import RunError
from fedgrpo.report.console.dry_run import histogram
from fedgrpo.report.training import (
    EvaluationRow,
    Rewards,
    SampleRow,
    TrainingSummary,
    best_evaluation,
    read_training,
)
from fedgrpo.report.training_console import TrainingView, evaluation_line
from fedgrpo.report.training_plot import draw, plot_training

FUNCTIONS = ("exact_match", "/home/me/rewards.py:short")
SUMMARY = TrainingSummary(
    steps=40,
    sampled=Rewards(0.2, 0.6, 0.65),
    greedy=Rewards(0.1, 0.7, 0.7),
    best_step=30,
    completions=1280,
    tokens=9000,
    tokens_per_second=700.0,
    seconds=12.5,
    peak_memory_bytes=300 * 2**20,
    peak_gpu_bytes=None,
    privacy="none: the adapter is as private as the prompts",
    settings="3f9a1c77b0de" * 5,
    version="0.1.0",
)


def step(number: int, **changes: object) -> dict[str, object]:
    """A step as the trainer writes it, as far as anything reads it."""
    row = {
        "step": number,
        "reward": 0.2 + 0.01 * number,
        "rewards": {FUNCTIONS[0]: 0.01 * number, FUNCTIONS[1]: None},
        "entropy": 1.0 / number,
        "kl": 0.01 * number,
        "length": 5.0,
        "tokens": 120,
        "truncated": 0.05,
        "zero_signal": 0.5,
        "seconds": 0.5,
        "tokens_per_second": 240.0,
    }
    return row | changes


def evaluation(number: int, sampled: float) -> EvaluationRow:
    rewards = {FUNCTIONS[0]: sampled, FUNCTIONS[1]: None}
    return EvaluationRow(
        step=number, sampled=sampled, greedy=sampled + 0.1, sampled_rewards=rewards,
        greedy_rewards=rewards, kl=0.02 * number, seconds=1.0,
    )  # fmt: skip


def write(folder: Path, steps: int = 40, *, summary: bool = True) -> Path:
    rows = [step(number) for number in range(1, steps + 1)]
    (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = [evaluation(n, 0.2 + 0.01 * n) for n in range(0, steps + 1, 10)]
    text = "".join(json.dumps(asdict(row)) + "\n" for row in measured)
    (folder / "evaluations.jsonl").write_text(text)
    (folder / "warnings.jsonl").write_text('{"step": 12, "message": "Too hot. Cool it."}\n')
    if summary:
        (folder / "training.json").write_text(json.dumps(asdict(SUMMARY)))
    return folder


def test_the_picture_has_its_size_and_ink_in_every_panel(tmp_path: Path) -> None:
    path = plot_training(write(tmp_path))
    assert path == tmp_path / "training.png"
    pixels = imread(path)[..., :3]
    assert pixels.shape[:2] == (1000, 1600)
    panels = (pixels[150:500, :800], pixels[150:500, 800:], pixels[550:, :800], pixels[550:, 800:])
    for panel in panels:
        assert np.mean(np.ptp(panel, axis=-1) > 0.1) > 0.001


@pytest.mark.parametrize("steps", [0, 1, 500], ids=["before the first", "one", "many"])
def test_any_number_of_steps_can_be_drawn_without_a_warning(tmp_path: Path, steps: int) -> None:
    with warnings.catch_warnings(action="error"):
        assert plot_training(write(tmp_path, steps, summary=False)).stat().st_size > 10_000


def test_the_picture_says_what_was_learnt_and_names_functions_shortly(tmp_path: Path) -> None:
    figure = draw(read_training(write(tmp_path)))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "Held-out reward: sampled 0.20 → 0.60, greedy 0.30 → 0.70" in titles
    words = " ".join(text.get_text() for text in figure.texts)
    assert "no privacy" in words
    assert "best held-out 0.65 after step 30" in words
    labels = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
    assert {"exact_match", "short"} <= set(labels)


def test_a_run_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no training that was evaluated"):
        plot_training(tmp_path)


def test_a_line_that_is_no_step_is_refused_by_file(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write("[1]\n")
    with pytest.raises(RunError, match=r"steps\.jsonl has a line that is no step"):
        read_training(tmp_path)


def test_the_report_command_prints_the_summary_and_draws_again(tmp_path: Path) -> None:
    write(tmp_path)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "0.200 -> 0.600 (+0.400), 0.650 at the best step" in words
    assert "warning at step 12: Too hot. Cool it." in words
    assert "as private as the prompts" in words
    assert (tmp_path / "training.png").exists()


def test_the_report_of_unfinished_training_tells_how_far_it_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(write(tmp_path, summary=False))])
    assert result.exit_code == 0, result.output
    assert "Not finished: 40 steps taken; the same command resumes" in result.output


def test_the_best_adapter_is_the_earliest_with_the_largest_sampled_reward() -> None:
    rows = [evaluation(0, 0.2), evaluation(10, 0.5), evaluation(20, 0.5), evaluation(30, 0.4)]
    assert best_evaluation(rows).step == 10


def test_a_row_means_over_the_steps_that_led_to_it() -> None:
    line = evaluation_line(evaluation(2, 0.5), [step(1), step(2, tokens_per_second=0.0)], 120)
    assert line.startswith("step   2/120  held-out 0.500 sampled, 0.600 greedy  reward 0.215")
    # The second step sampled nothing: 120 tokens in one second.
    assert line.endswith("120 tokens/s")
    assert line.isascii()


def test_a_pipe_gets_rows_and_each_warning_and_nothing_else() -> None:
    text = io.StringIO()
    with TrainingView(10, Console(file=text, width=200)) as view:
        view.evaluation(evaluation(0, 0.2), [])
        view.step(step(1))
        view.warning("Hot [bold]. Cool it.")
        view.evaluation(evaluation(1, 0.3), [])
    first, warning, second = text.getvalue().splitlines()
    assert first.startswith("step  0/10")
    assert warning == "warning: Hot [bold]. Cool it."
    assert second.startswith("step  1/10")
    assert second.endswith("left")


def test_a_terminal_gets_a_live_line_and_keeps_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # Not that of whatever runs the tests.
    text = io.StringIO()
    console = Console(file=text, width=160, force_terminal=True)
    with TrainingView(10, console) as view:
        view.evaluation(evaluation(0, 0.2), [])
        view.step(step(1))
        view._progress.refresh()
    assert "1/10" in text.getvalue()
    assert "reward 0.210" in text.getvalue()


def test_completions_are_shown_as_they_are_with_each_reward() -> None:
    text = io.StringIO()
    sample = SampleRow(
        step=0, prompt=[{"role": "user", "content": "[red]why?"}], completion="[b]because",
        reward=1.5, rewards={"right": 1.0, "short": None},
    )  # fmt: skip
    with TrainingView(10, Console(file=text, width=120), show_completions=True) as view:
        view.evaluation(evaluation(0, 0.2), [sample])
    shown = text.getvalue()
    assert "user: [red]why?" in shown
    assert "[b]because" in shown
    assert {"right", "short", "1.50", "1.00", "-"} <= set(shown.split())


def test_a_histogram_counts_values_where_they_are_few_and_bins_where_they_are_many() -> None:
    few = histogram(np.array([0.0, 1.0, 1.0, np.nan, 0.5]))
    assert [(b.low, b.high, b.count) for b in few.bins] == [(0, 0, 1), (0.5, 0.5, 1), (1, 1, 2)]
    assert few.missing == 1
    many = histogram(np.arange(100.0))
    assert [b.count for b in many.bins] == [10] * 10
    assert histogram(np.full(3, np.nan)).bins == []
