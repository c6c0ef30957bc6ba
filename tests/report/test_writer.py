import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedgrpo.ground.errors import RunError
from fedgrpo.report import (
    PHASES,
    WAITING,
    RunWriter,
    read_rows,
    read_status,
    read_summary,
    to_json,
)
from fedgrpo.report.reader import read_run, read_samples
from tests.report.runs import SUMMARY, round_row, run


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    return RunWriter(tmp_path / "runs" / "1")


def filled(writer: RunWriter, rounds: int) -> RunWriter:
    for row in run(rounds):
        writer.row(row)
    return writer


def status(writer: RunWriter) -> dict[str, object]:
    tree: dict[str, object] = json.loads((writer.run_dir / "status.json").read_text())
    return tree


def test_rows_come_back_in_order(writer: RunWriter) -> None:
    assert filled(writer, 5).rows() == run(5)
    assert read_rows(writer.run_dir) == run(5)


def test_a_directory_without_a_run_reads_as_empty(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none") == []
    assert read_status(tmp_path / "none") is None
    assert read_summary(tmp_path / "none") is None


@pytest.mark.parametrize("cut", [1, 2, 40, 10_000])
def test_a_torn_last_line_is_ignored_and_the_next_row_is_whole(writer: RunWriter, cut: int) -> None:
    path = filled(writer, 3).run_dir / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: max(len(whole) - cut, len(whole) - len(to_json(round_row(3))))])
    assert writer.rows() == run(2)
    writer.row(round_row(3))
    assert writer.rows() == run(3)
    assert path.read_bytes() == whole


def test_a_first_line_that_is_torn_leaves_no_trace(writer: RunWriter) -> None:
    (writer.run_dir / "metrics.jsonl").write_bytes(b'{"round": 0, "app')
    writer.row(run(0)[0])
    assert writer.rows() == run(0)


def test_a_broken_line_inside_the_file_is_an_error_that_names_it(writer: RunWriter) -> None:
    path = filled(writer, 3).run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "rubbish\n", *lines[2:]]))
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2"):
        writer.rows()


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"rounds": "secret"}'])
@pytest.mark.parametrize(("name", "read"), [("status", read_status), ("summary", read_summary)])
def test_a_broken_file_is_named_with_a_cure(
    tmp_path: Path, name: str, read: Callable[[Path], object], content: bytes
) -> None:
    (tmp_path / f"{name}.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"{name}\.json: ") as broken:
        read(tmp_path)
    assert "from a copy" in broken.value.cure


def test_a_broken_line_of_completions_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "completions.jsonl").write_text(
        '{"round": 1, "prompt": "secret", "reward": "x y"}\n'
    )
    with pytest.raises(RunError, match=r"completions\.jsonl, line 1: ") as broken:
        read_samples(tmp_path)
    assert "secret" not in str(broken.value)
    assert "x y" not in str(broken.value)


def test_settings_that_are_no_table_are_not_taken_for_the_defaults(writer: RunWriter) -> None:
    folder = filled(writer, 2).run_dir
    (folder / "settings.json").write_text("[]")
    assert read_run(folder).settings is None


@pytest.mark.parametrize("last", [0, 2, 9])
def test_truncation_keeps_the_rounds_that_a_resumed_run_does_not_repeat(
    writer: RunWriter, last: int
) -> None:
    filled(writer, 4).truncate(last)
    assert writer.rows() == run(min(last, 4))
    assert os.listdir(writer.run_dir) == ["metrics.jsonl"]


def test_truncation_survives_a_torn_last_line(writer: RunWriter) -> None:
    with (filled(writer, 4).run_dir / "metrics.jsonl").open("ab") as file:
        file.write(b'{"round": 5, "rew')
    writer.truncate(3)
    assert writer.rows() == run(3)


def test_a_refused_row_leaves_the_file_as_it_was(writer: RunWriter) -> None:
    filled(writer, 2)
    with pytest.raises(RunError):
        writer.row(round_row(3, reward=float("nan")))
    assert writer.rows() == run(2)


@pytest.mark.slow
def test_a_reader_never_sees_a_part_of_a_status(writer: RunWriter) -> None:
    writer.phase(0, 9, WAITING)
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            writer.phase(number, 200, PHASES[number % len(PHASES)], "x" * (number * 37 % 5000))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while not done.is_set():
        assert read_status(writer.run_dir) is not None  # Raises on any partial text.
        seen += 1
    thread.join()
    assert seen > 0


def test_a_failed_replacement_leaves_the_old_file_and_no_draft(
    writer: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.phase(1, 9, "train")
    before = status(writer)

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        writer.phase(2, 9, "train")
    assert status(writer) == before
    assert os.listdir(writer.run_dir) == ["status.json"]


def test_the_state_follows_the_life_of_a_run(writer: RunWriter) -> None:
    states = []
    for step in (
        lambda: writer.phase(0, 24, WAITING, "3 of 9 nodes online"),
        lambda: writer.phase(1, 24, "train"),
        lambda: writer.interrupt("stopped by the user", "run the same command to resume"),
        lambda: writer.phase(1, 24, "train"),
        lambda: writer.fail("too few nodes", "start more"),
        lambda: writer.summary(SUMMARY),
    ):
        step()
        states.append(status(writer)["state"])
    assert states == ["waiting", "running", "interrupted", "running", "failed", "finished"]
    assert read_summary(writer.run_dir) == SUMMARY


def test_a_failure_keeps_where_it_happened_with_cause_and_cure(writer: RunWriter) -> None:
    writer.phase(7, 24, "mask", "9 of 11 nodes")
    RunWriter(writer.run_dir).fail("too few nodes", "start more")
    now = status(writer)
    assert (now["round"], now["rounds"], now["phase"]) == (7, 24, "mask")
    assert (now["problem"], now["cure"]) == ("too few nodes", "start more")


def test_a_phase_begins_once_however_often_its_detail_changes(tmp_path: Path) -> None:
    ticks = iter(range(100, 200))
    writer = RunWriter(tmp_path, clock=lambda: float(next(ticks)))
    writer.phase(1, 9, "train", "1 of 3")
    first = read_status(tmp_path)
    writer.phase(1, 9, "train", "2 of 3")
    second = read_status(tmp_path)
    writer.phase(2, 9, "train")
    third = read_status(tmp_path)
    assert first
    assert second
    assert third
    assert second.since == first.since < second.time < third.since
