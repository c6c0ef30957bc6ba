import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedgrpo.report import WAITING, LiveView, RunWriter, follow, print_summary
from fedgrpo.report.wording import by_words, plain_line
from tests.report.runs import START, SUMMARY, round_row, run


def terminal(width: int = 110) -> Console:
    env = {"TERM": "xterm"}
    return Console(record=True, force_terminal=True, width=width, file=io.StringIO(), _environ=env)


def pipe() -> Console:
    return Console(force_terminal=False, width=80, file=io.StringIO())


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def seen(view: LiveView, width: int = 110) -> str:
    console = terminal(width)
    console.print(view)
    return console.export_text()


def after(*steps: Callable[[], object]) -> Callable[[], bool]:
    """A ``finished`` that takes one step of the run at each look, and ends after the last."""
    left = list(steps)

    def finished() -> bool:
        if left:
            left.pop(0)()
        return not left

    return finished


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    return RunWriter(tmp_path / "[red]demo")


def filled(writer: RunWriter, rounds: int) -> RunWriter:
    for row in run(rounds):
        writer.row(row)
    return writer


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_the_live_view_shows_every_current_figure(writer: RunWriter, width: int) -> None:
    filled(writer, 4).phase(5, 24, "train", "3 of 11 nodes done")
    text = seen(LiveView(writer.run_dir, 24), width)
    lines = {line.strip("│ ").split("  ")[0]: line for line in text.splitlines()}
    for name, value in {
        "Reward": "0.400",
        "Held-out, sampled": "0.360",
        "Held-out, greedy": "0.490",
        "KL to the start": "0.080",
        "KL to the round": "0.0042",
        "Clipping norm": "0.750",
        "Dropped nodes": "1",
        "Epsilon": "5.00",
    }.items():
        assert value in lines[name]
    assert "4 of 24 rounds" in text
    assert "fedgrpo [red]demo" in text
    assert "Round 5: training on the nodes, 3 of 11 nodes done" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_the_time_left_counts_down_from_the_last_row(writer: RunWriter) -> None:
    now = [1000.0]
    view = LiveView(filled(writer, 4).run_dir, 24, clock=lambda: now[0])
    os.utime(writer.run_dir / "metrics.jsonl", (1000.0, 1000.0))
    assert "1:40 min left" in seen(view)
    now[0] += 3
    assert "1:37 min left" in seen(view)


def test_the_live_view_stands_before_anything_is_written(tmp_path: Path) -> None:
    text = seen(LiveView(tmp_path / "not yet", 24))
    assert "0 of 24 rounds" in text
    assert "starting" in text


def test_waiting_for_nodes_is_said(writer: RunWriter) -> None:
    writer.phase(0, 24, WAITING, "3 of 9 online")
    assert "waiting for nodes, 3 of 9 online" in seen(LiveView(writer.run_dir, 24))


def test_a_run_without_differential_privacy_says_so(writer: RunWriter) -> None:
    writer.row(round_row(1, epsilon=None))
    (line,) = [x for x in seen(LiveView(writer.run_dir, 24)).splitlines() if "Epsilon" in x]
    assert "none" in line


def test_a_failure_is_shown_with_its_cure_and_no_time_left(writer: RunWriter) -> None:
    filled(writer, 2).fail("3 of 9 nodes online", "start more nodes")
    text = seen(LiveView(writer.run_dir, 24))
    assert "failed" in text
    assert "3 of 9 nodes online" in text
    assert "Cure: start more nodes" in text
    assert "left" not in text.splitlines()[1]


def test_a_skipped_round_and_a_warning_are_shown(writer: RunWriter) -> None:
    writer.row(round_row(1, applied=False, reason="only [7] of 9 nodes", zero_signal=0.99))
    text = seen(LiveView(writer.run_dir, 24))
    assert "Round 1 left the model as it was: only [7] of 9 nodes" in text
    assert "Warning: In 99 % of the groups" in text


def test_an_ascii_terminal_gets_ascii_figures(writer: RunWriter) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(file=file, force_terminal=True, width=80)
    console.print(LiveView(filled(writer, 4).run_dir, 24))
    file.flush()
    assert b"Clipping norm" in raw.getvalue()


def test_following_on_a_terminal_ends_with_the_last_round_in_view(writer: RunWriter) -> None:
    console = terminal()
    rows = run(3)
    steps = [lambda row=row: writer.row(row) for row in rows]
    follow(writer.run_dir, 3, after(*steps), console, interval_s=0)
    assert "3 of 3 rounds" in printed(console).split("2 of 3 rounds")[-1]


def test_a_pipe_gets_one_line_a_round_as_rounds_finish(writer: RunWriter) -> None:
    console, counts = pipe(), []
    steps = []
    for row in run(4):
        steps += [
            lambda row=row: writer.row(row),
            lambda: counts.append(len(printed(console).splitlines())),
        ]
    follow(writer.run_dir, 4, after(*steps), console, interval_s=0)
    assert counts == [1, 2, 3, 4, 5]
    lines = printed(console).splitlines()
    assert len(lines) == 5
    assert [line.split("/")[0] for line in lines] == [f"round {n}" for n in range(5)]
    assert "held-out 0.160 sampled, 0.290 greedy" in lines[0]
    for figure in (
        "reward 0.400",
        "KL to start 0.080",
        "clipping norm 0.750",
        "dropped 1",
        "epsilon 5.00",
    ):
        assert figure in lines[4]
    assert "\x1b" not in printed(console)


def test_a_round_that_is_done_again_after_a_resumption_is_printed_again(
    writer: RunWriter,
) -> None:
    console = pipe()
    steps = (
        lambda: filled(writer, 2),
        lambda: writer.truncate(1),
        lambda: writer.row(round_row(2, reward=0.9)),
    )
    follow(writer.run_dir, 2, after(*steps), console, interval_s=0)
    assert [line.split("/")[0] for line in printed(console).splitlines()] == [
        "round 0",
        "round 1",
        "round 2",
        "round 2",
    ]


def test_a_pipe_gets_each_kind_of_warning_once(writer: RunWriter) -> None:
    console = pipe()
    for row in [START, *(round_row(n, zero_signal=0.96 + n / 100) for n in (1, 2, 3))]:
        writer.row(row)
    follow(writer.run_dir, 3, lambda: True, console)
    assert printed(console).count("warning: ") == 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_closing_table_shows_what_was_achieved_and_guaranteed(
    writer: RunWriter, width: int
) -> None:
    writer.summary(SUMMARY)
    console = terminal(width)
    print_summary(SUMMARY, console, Path("runs/[red]demo"))
    text = " ".join(console.export_text().replace("│", " ").split())
    for figure in (
        "0.160 -> 0.560 (+0.400)",
        "0.290 -> 0.680 (+0.390)",
        "24, 1 skipped",
        "23 over all rounds",
        "2:51 min, 8 % of it",
        "epsilon 5.39, delta 1e-05 for one prompt, against the server",
        "trimmed mean of 4 group means",
        "runs/[red]demo/adapter",
    ):
        assert figure in text


def test_the_closing_table_says_when_nothing_is_guaranteed() -> None:
    console = terminal()
    print_summary(replace(SUMMARY, privacy=[]), console)
    assert "no differential privacy" in console.export_text()


def test_a_line_tells_each_task_or_the_worst_of_many() -> None:
    few = {"add": {"sampled": 0.5, "greedy": 0.6}, "sort": {"sampled": 0.25, "greedy": 0.3}}
    row = round_row(2, held_out_by=few)
    assert "greedy (add 0.50, sort 0.25)" in plain_line(row, [row], 4)
    many = {f"t{i}": {"sampled": 1 - i / 10, "greedy": 0.0} for i in range(9)}
    assert by_words(many) == "lowest: t8 0.20, t7 0.30, t6 0.40, t5 0.50, t4 0.60, t3 0.70"
