"""Processes of a deployment: what they are told nobody reads, and none outlives who started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from fedgrpo.federation.deployment import children
from fedgrpo.ground.errors import RunError
from tests.federation.deployment.operated import environment, until

CHILD = """
import sys, time
from pathlib import Path
from fedgrpo.federation.deployment.children import told
said = told()
Path(said["file"]).write_text(said["secret"])
time.sleep(600)
"""
PARENT = """
import sys, time
from fedgrpo.federation.deployment import children
from fedgrpo.ground.errors import RunError
children.start(sys.argv[1], {"file": sys.argv[2], "secret": "whisper"})
time.sleep(600)
"""


def modules(folder, **sources):
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    path = os.pathsep.join([str(folder), environment()["PYTHONPATH"]])
    return environment() | {"PYTHONPATH": path}


def test_a_child_ends_with_a_parent_that_was_killed(tmp_path):
    env = modules(tmp_path, child_of_a_test=CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, "child_of_a_test", str(tmp_path / "said")], env=env
    )
    until(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text())
    (child,) = psutil.Process(parent.pid).children()
    assert (tmp_path / "said").read_text() == "whisper"
    assert "whisper" not in " ".join([*child.cmdline(), *child.environ().values()])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_ends_is_started_again_after_growing_waits_until_it_is_stopped(monkeypatch):
    slept, sleep = [], asyncio.sleep

    async def nap(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    begun = []

    def begin():
        if len(begun) == 6:
            raise asyncio.CancelledError
        begun.append(subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE))
        return begun[-1]

    async def run():
        await asyncio.wait([asyncio.ensure_future(children.keep_running("it", begin))])

    asyncio.run(run())
    assert len(begun) == 6
    assert [seconds for seconds in slept if seconds >= 1] == [1, 2, 4, 8, 16, 30]
    assert all(process.poll() is not None for process in begun)


@pytest.mark.slow
def test_a_module_that_nobody_told_anything_ends_at_once():
    done = subprocess.run(
        [sys.executable, "-m", "fedgrpo.federation.deployment.executor.tasks"],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "started by fedgrpo" in done.stderr


VISIT = """
from pathlib import Path
from fedgrpo.federation.deployment.children import told
with Path(told()["file"]).open("a") as file:
    file.write("x")
"""


def test_what_comes_now_and_then_comes_again_and_ends_with_who_waits_for_it(tmp_path, monkeypatch):
    for name, value in modules(tmp_path, visit_of_a_test=VISIT).items():
        monkeypatch.setenv(name, value)
    file, begun = tmp_path / "visits", []

    def begin():
        begun.append(children.start("visit_of_a_test", {"file": str(file)}))
        return begun[-1]

    async def watched():
        visits = asyncio.create_task(children.start_every(0.01, begin, 60.0))
        while not file.exists() or len(file.read_text()) < 2:
            assert not visits.done()
            await asyncio.sleep(0.05)
        visits.cancel()
        await asyncio.wait([visits])
        assert visits.cancelled()

    asyncio.run(watched())
    assert len(begun) >= 2
    assert all(process.poll() is not None for process in begun)


@pytest.mark.parametrize(
    ("passed_s", "wait_s"), [(0.0, 3600), (2.5, 3597.5), (3600, 3600), (3607, 3593), (11_000, 3400)]
)
def test_what_comes_every_hour_comes_at_hours_after_its_start_however_long_it_takes(
    passed_s, wait_s
):
    assert children.until_next(passed_s, 3600.0) == wait_s


LOOK = """
import json, sys
said = json.loads(sys.stdin.readline())
if said["answers"]:
    print(json.dumps({"problem": said["secret"]}))
"""


def test_what_a_process_says_at_its_end_is_read_and_silence_is_an_error(tmp_path, monkeypatch):
    for name, value in modules(tmp_path, look_of_a_test=LOOK).items():
        monkeypatch.setenv(name, value)
    told = {"answers": True, "secret": "the disk is full"}
    assert children.answered("look_of_a_test", told, 60.0) == {"problem": "the disk is full"}
    with pytest.raises(RunError, match="gave no answer") as silent:
        children.answered("look_of_a_test", told | {"answers": False}, 60.0)
    assert "disk" not in str(silent.value)
