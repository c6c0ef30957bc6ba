"""One worker process, and the socket to it."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
import weakref
from collections.abc import Sequence

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.calling.processes import start_worker
from fedgrpo.rewards.sandboxed.protocol import WorkerOrder
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits

START_S = 120.0
"""Longest time for loading the functions."""
_FAILURE_BYTES = 128


class Connection:
    """One worker process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = control
        self.owner = os.getpid()
        self.abstains: tuple[bool, ...] = ()
        """Of each function, whether it may leave a group without a reward."""
        self.spans: tuple[tuple[float, float], ...] = ()
        """Of each metric, its least and largest value."""
        self._end = weakref.finalize(self, _end, process, control, self.owner)

    @classmethod
    def open(
        cls,
        names: Sequence[str],
        limits: WorkerLimits,
        start_s: float = START_S,
        metrics: Sequence[str] = (),
    ) -> Connection:
        """Start a process and wait until it has loaded the functions, for so long at most."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            order = WorkerOrder(theirs.fileno(), os.getpid(), tuple(names), limits, tuple(metrics))
            connection = cls(_started(order), control)
        connection._await_loading(start_s)
        return connection

    def _await_loading(self, start_s: float) -> None:
        self.control.settimeout(start_s)
        try:
            message = self.control.recv(65536)
        except OSError:
            message = b""
        if not message.startswith(b"{"):
            self.close()
            problem, cure = json.loads(message or _SILENT)
            raise RewardError(problem, cure=cure)
        told = json.loads(message)
        self.abstains = tuple(map(bool, told["abstains"]))
        self.spans = tuple((float(low), float(high)) for low, high in told["spans"])

    def is_alive(self) -> bool:
        """Whether it runs, and is this process's own."""
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, group: bytes, size: int, timeout_s: float) -> tuple[bytes, bytes]:
        """Send a group; returns its child's answer and how the child ended.

        Raises
        ------
        OSError, EOFError
            If the worker died or hangs.
        """
        deadline = time.monotonic() + timeout_s
        answer = self._send(group)
        try:
            found = _read(answer, 1 + max(size, _FAILURE_BYTES), deadline)
        finally:
            os.close(answer)
        self.control.settimeout(max(deadline - time.monotonic(), 1.0))
        report = self.control.recv(16)
        if not report:
            raise EOFError
        return found, report

    def _send(self, group: bytes) -> int:
        """Hand the group over as a file in memory; returns the descriptor to read the answer."""
        request = os.memfd_create("group")
        answer, theirs = os.pipe()
        try:
            with open(request, "wb", closefd=False) as file:
                file.write(group)
            socket.send_fds(self.control, [b"g"], [request, theirs])
        except BaseException:
            os.close(answer)
            raise
        finally:
            os.close(request)
            os.close(theirs)
        return answer

    def close(self) -> None:
        """End the process."""
        self._end()


_SILENT = json.dumps(
    [
        "the process in which rewards judge did not start",
        "read its own messages above; the reward modules are imported there and nowhere else",
    ]
)


def _started(order: WorkerOrder) -> subprocess.Popen[bytes]:
    """Sets have one order there, and nothing that it prints is shown."""
    return start_worker(
        "fedgrpo.rewards.sandboxed.worker",
        order.to_json(),
        order.control,
        environment={"PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
    )


def _end(process: subprocess.Popen[bytes], control: socket.socket, owner: int) -> None:
    control.close()
    if owner == os.getpid():
        process.kill()
        process.wait()


def _read(descriptor: int, limit: int, deadline: float) -> bytes:
    """Read up to the end, ``limit`` bytes or the deadline."""
    poll, found = select.poll(), b""
    poll.register(descriptor, select.POLLIN)
    while len(found) < limit:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        more = os.read(descriptor, limit - len(found))
        if not more:
            break
        found += more
    return found
