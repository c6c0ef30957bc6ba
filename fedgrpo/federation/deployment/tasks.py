"""Process: asks a SuperLink or a SuperNode for tasks, and starts a process for each.

It takes the place of Flower's own executor, which unpacks the bundle that a run was submitted with
and runs it. Here a task is a run's settings or a message, and the app is one that is installed.
"""

from __future__ import annotations

import logging
import subprocess
import time

from fedgrpo.federation.deployment.children import end, start, told
from fedgrpo.federation.deployment.flower_internals import Runtime, next_task
from fedgrpo.ground.mishaps import pass_on_interrupt

LOG = logging.getLogger(__name__)

POLL_S = 0.2
AFTER_FAILURE_S = 2.0
TASK = "fedgrpo.federation.deployment.task"
MOST_AT_ONCE = {"flwr-clientapp": 1, "flwr-serverapp": 8}
"""Processes by kind of task."""


def main() -> None:
    """Work until this process is ended."""
    said = told()
    runtime, kind = Runtime(**said["runtime"]), said["kind"]
    running: list[subprocess.Popen[bytes]] = []
    client = runtime.client("SuperExec")
    try:
        while True:
            running = [process for process in running if process.poll() is None]
            token = _token(client, kind) if len(running) < MOST_AT_ONCE[kind] else ""
            if token:
                running.append(start(TASK, {**said, "token": token}))
            else:
                time.sleep(POLL_S)
    finally:
        for process in running:
            end(process)


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
