"""Process: asks a SuperLink or a SuperNode for tasks, and has a process of its own do each.

It takes the place of Flower's own executor, which unpacks the bundle that a run was submitted with
and runs it. Here a task is a run's settings or a message, and the app is one that is installed.
Tasks are forked from a process that has imported Flower and the app, and not torch: a crash, or
memory that is not given back, costs one task.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import time
from typing import Any

from fedgrpo.federation.deployment.children import PATIENCE_S, told
from fedgrpo.federation.deployment.executor import task
from fedgrpo.federation.deployment.flower_internals import Runtime, next_task
from fedgrpo.federation.deployment.log import log_to_stderr
from fedgrpo.ground.mishaps import pass_on_interrupt

LOG = logging.getLogger(__name__)

POLL_S = 0.2
AFTER_FAILURE_S = 2.0
MOST_AT_ONCE = {"flwr-clientapp": 1, "flwr-serverapp": 8}
"""Processes by kind of task."""


def main() -> None:
    """Work until this process is ended."""
    said = told()
    log_to_stderr()
    runtime, kind = Runtime(**said["runtime"]), said["kind"]
    # In Python 3.11.0 the socket of a fork server was open to every user (CVE-2022-42919).
    multiprocessing.util.abstract_sockets_supported = False  # type: ignore[misc]
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([task.__name__, said["app"].partition(":")[0]])
    # A task whose first sign of life comes late is given to somebody else, and imports take long.
    first = forks.Process(target=task.ready)
    first.start()
    first.join()
    running: list[Any] = []
    client = runtime.client("SuperExec")
    try:
        while True:
            running = [process for process in running if process.is_alive()]
            token = _token(client, kind) if len(running) < MOST_AT_ONCE[kind] else ""
            if token:
                running.append(forks.Process(target=task.work, args=(said, token)))
                running[-1].start()
            else:
                time.sleep(POLL_S)
    finally:
        _end(running)


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
        LOG.warning("no answer about tasks: %s", type(error).__name__)
        time.sleep(AFTER_FAILURE_S)
        return ""


if __name__ == "__main__":
    main()
