"""What went wrong is added up over processes and crashes."""

import multiprocessing
from pathlib import Path

import pytest

from fedgrpo.site import MishapFile


def test_counts_add_up_by_cause(tmp_path: Path) -> None:
    file = MishapFile(tmp_path / "m.jsonl")
    assert file.read() == {}
    file.add({"too long": 2})
    file.add({})
    file.add({"too long": 1, "out of time": 5})
    assert file.read() == {"too long": 3, "out of time": 5}
    assert (tmp_path / "m.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    file = MishapFile(tmp_path / "m.jsonl")
    file.add({"too long": 2})
    with file.path.open("ab") as torn:
        torn.write(b'\n{"too lo')
    assert file.read() == {"too long": 2}
    file.add({"too long": 1})
    assert file.read() == {"too long": 3}


def _add(path: Path) -> None:
    for _ in range(50):
        MishapFile(path).add({"a": 1})


@pytest.mark.slow
def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(tmp_path / "m.jsonl",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert MishapFile(tmp_path / "m.jsonl").read() == {"a": 100}
