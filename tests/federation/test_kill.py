"""Processes that are really killed, by SIGKILL, at random times."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedgrpo.federation.simulation import reaper
from fedgrpo.federation.state.node_store import SECRET as NODE_SECRET
from fedgrpo.ground.run_files import NODES, SECRET
from fedgrpo.ledger import verify
from fedgrpo.report.reader import read_rows, read_status
from tests.federation import killable

ROOT = Path(__file__).parents[2]

SCENARIO = """
rounds = 2
[simulation]
clients = 9
[data]
prompts_per_client = 60
min_prompts = 60
[grpo]
prompts_per_step = 4
group_size = 4
[privacy]
max_epsilon = 1e6
[evaluation]
prompts = 8
every = 1
"""


def wait_until(seen: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    while not seen() and process.poll() is None:
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(9, marks=pytest.mark.soak)])
def test_a_server_killed_at_random_times_ends_as_one_that_never_was(
    tmp_path: Path, kills: int
) -> None:
    runs, chance = killable.runs(tmp_path), random.Random(0)
    whole, broken = runs.prepare("whole"), runs.prepare("broken")
    runs.go(whole)
    marks = sorted(chance.sample(range(1, killable.ROUNDS), kills))
    for attempt, mark in enumerate(marks, start=2):
        command = [sys.executable, "-m", killable.__name__, str(tmp_path), "broken", str(attempt)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda mark=mark: len(read_rows(broken)) > mark, process)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.1))
            assert process.poll() is None, "the run was over before it was killed"
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    runs.go(broken, attempt=kills + 2)
    assert runs.outcome(broken) == runs.outcome(whole)
    assert verify(broken) == verify(whole)


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("moments", [("second round",), ("first round", "second round")], ids=len)
def test_a_simulation_killed_with_all_its_processes_is_resumed_by_the_same_command(
    tmp_path: Path, moments: tuple[str, ...]
) -> None:
    (tmp_path / "small.toml").write_text(SCENARIO)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for directory in (whole, broken):
        prepare(directory)

    def in_first_round() -> bool:
        status = read_status(broken)
        return status is not None and (status.round, status.phase) == (1, "train")

    def in_second_round() -> bool:
        return broken.exists() and len(read_rows(broken)) == 2

    reached = {"first round": in_first_round, "second round": in_second_round}
    for moment in moments:
        with start(tmp_path, broken) as process:
            wait_until(reached[moment], process)
            time.sleep(random.Random(moment).uniform(0, 0.5))
            assert process.poll() is None
            kill_everything(broken, process)
    for directory in (whole, broken):
        with start(tmp_path, directory) as process:
            output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output
    assert outcome(broken) == outcome(whole)
    assert verify(broken).ended


def prepare(directory: Path) -> None:
    """Put the same secrets in a directory before its run begins."""
    paths = [directory / SECRET, *(directory / NODES / f"{i}" / NODE_SECRET for i in range(9))]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(bytes([number]) * 32)


def start(folder: Path, run_dir: Path) -> subprocess.Popen[str]:
    script = Path(sysconfig.get_path("scripts")) / "fedgrpo"
    return subprocess.Popen(
        [str(script), "simulate", "small.toml", "--run-dir", run_dir.name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_everything(run_dir: Path, command: subprocess.Popen[str]) -> None:
    """As a power cut would: server, nodes, Flower, Ray, and the command itself."""
    for process in reaper.processes_of(str(run_dir)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    command.kill()


def outcome(run_dir: Path) -> dict[str, Any]:
    """Everything that a run has come to, wall times apart."""
    summary = json.loads((run_dir / "summary.json").read_text())
    return {
        "ledger": (run_dir / "ledger.jsonl").read_text(),
        "adapter": {p.name: p.read_bytes() for p in (run_dir / "adapter").iterdir()},
        "rows": [replace(row, seconds={}, bytes={}) for row in read_rows(run_dir)],
        "summary": summary | {"wall_s": 0, "overhead_share": 0},
    }
