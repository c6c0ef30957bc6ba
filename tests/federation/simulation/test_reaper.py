"""The reaper: who carries the mark of a simulation is ended, willing or not, and nobody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedgrpo.federation.simulation import reaper

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready'); time.sleep(600)"


def start(tag: str | None) -> subprocess.Popen[str]:
    """Start a process in its own session that ignores SIGTERM, and wait until it does."""
    env = os.environ | ({reaper.TAG: tag} if tag else {})
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", STUBBORN],
        env=env, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def neighbours() -> object:
    processes = [start(None), start("/another/run")]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_it_ends_what_ignores_it_and_spares_others(
    tmp_path: Path, neighbours: list[subprocess.Popen[str]]
) -> None:
    mine = [start(str(tmp_path)), start(str(tmp_path))]
    assert {process.pid for process in reaper.processes_of(str(tmp_path))} == {p.pid for p in mine}
    assert reaper.end_processes_of(str(tmp_path), patience_s=0.2) == 2
    assert all(process.communicate() and process.returncode == -9 for process in mine)
    assert [process.poll() for process in neighbours] == [None, None]


@pytest.mark.slow
def test_it_acts_when_the_command_is_gone_in_whatever_way(tmp_path: Path) -> None:
    run_dir, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    left_behind = start(str(run_dir))
    watcher = subprocess.Popen(
        [sys.executable, "-I", reaper.__file__, str(run_dir), str(scratch)], stdin=subprocess.PIPE
    )
    assert scratch.exists()
    watcher.communicate(timeout=30)  # Closes the pipe, as the death of the command does.
    assert left_behind.communicate(timeout=5)
    assert watcher.returncode == 0
    assert not scratch.exists()
