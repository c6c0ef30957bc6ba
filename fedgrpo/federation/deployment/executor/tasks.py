"""Process: asks a SuperLink or a SuperNode for tasks, and has a process of its own do each.

It takes the place of Flower's own executor, which unpacks the bundle that a run was submitted with
and runs it. Here a task is a run's settings or a message, and the app is one that is installed.
Tasks are forked from this process, which has imported Flower, the app and all that most messages
need, and not torch: a crash, or memory that is not given back, costs one task. It has one thread,
so that what is forked finds no lock that another one holds. What needs torch at a site is asked of
the model process.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import select
import time
from typing import Any

from fedgrpo.federation.deployment.children import PATIENCE_S, told_once
from fedgrpo.federation.deployment.executor import task
from fedgrpo.federation.deployment.executor.door import Door
from fedgrpo.federation.deployment.flower_internals.pace import Pace
from fedgrpo.federation.deployment.flower_internals.runtime import Runtime
from fedgrpo.federation.deployment.flower_internals.tasks import import_for_tasks, next_task
from fedgrpo.ground.mishaps import pass_on_interrupt

LOG = logging.getLogger(__name__)

LOOKS_S = {"flwr-clientapp": (0.5, 0.05), "flwr-serverapp": (2.0, 2.0)}
"""Between two looks for a task, while nothing runs and while something does, by its kind: for
messages, of which the next one of a round comes soon, or for runs. A SuperLink pays for each look.
"""
AFTER_FAILURE_S = 2.0
MOST_AT_ONCE = {"flwr-clientapp": 1, "flwr-serverapp": 8}
"""Processes by kind of task."""
_TOLD = 0
"""Descriptor of the pipe that ends with who started this process."""
PRELOADED = {
    "flwr-clientapp": (
        "fedgrpo.federation.node.training",
        "fedgrpo.federation.protocols.buckets.node",
        "fedgrpo.federation.protocols.committee.node",
    ),
    "flwr-serverapp": (),
}
"""What most tasks of a kind need."""


def main() -> None:
    """Work until who started this process ends."""
    said = told_once()
    runtime, kind = Runtime(**said["runtime"]), said["kind"]
    _preload(kind, said["app"])
    door = Door(said["door"], said["idle_s"]) if "door" in said else None
    running: list[Any] = []
    client, pace = runtime.client("SuperExec"), Pace(*LOOKS_S[kind])
    forks = multiprocessing.get_context("fork")
    try:
        while not _is_over(door, pace.wait_s):
            running = [process for process in running if process.is_alive()]
            while len(running) < MOST_AT_ONCE[kind] and (token := _token(client, kind)):
                running.append(forks.Process(target=_work, args=(door, said, token)))
                running[-1].start()
            if running:
                pace.came()
    finally:
        _end(running)
        if door:
            door.close()


def _preload(kind: str, app: str) -> None:
    import_for_tasks(kind)
    for module in (*PRELOADED[kind], app.partition(":")[0]):
        # What an app of one's own lacks is told where it is loaded.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _is_over(door: Door | None, wait_s: float) -> bool:
    """Wait; meanwhile, let who knocks in. True if who started this process is gone."""
    watched = (_TOLD, *(door.waiting if door else ()))
    ready, _, _ = select.select(watched, [], [], wait_s)
    if door:
        door.look()
    return _TOLD in ready and not os.read(_TOLD, 1)


def _work(door: Door | None, said: dict[str, Any], token: str) -> None:
    """In the process of a task."""
    if door:
        door.leave()
    task.work(said, token)


def _end(running: list[Any]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        process.join(PATIENCE_S)
        process.kill()


def _token(client: object, kind: str) -> str:
    """Token of the next task; empty if there is none, or nobody to ask."""
    try:
        return next_task(client, kind)
    except BaseException as error:
        pass_on_interrupt(error)
        told = {"code": "tasks-unanswered"}
        LOG.warning("no answer about tasks: %s", type(error).__name__, extra=told)
        time.sleep(AFTER_FAILURE_S)
        return ""


if __name__ == "__main__":
    main()
