"""The process that hands groups to those that judge: it loads no reward, and sees to limits.

It forks a template (:mod:`fedgrpo.rewards.sandboxed.template`) that loads the rewards and sees no
prompt, and lets it fork a child for every prompt's group. The group is handed over while the
template stands still, to the child alone.

A child starts from the same state whatever was judged before: the functions' own state, the seeds
of Python's and numpy's global generators (0), the order of sets. It gives up everything that could
outlive it (:mod:`fedgrpo.rewards.sandboxed.sandbox`), reads its group, judges, writes numbers and
ends. What it wrote is never unpickled. Run by
:class:`fedgrpo.rewards.sandboxed.client.RewardWorker`: ``python -m fedgrpo.rewards.sandboxed.worker
ORDER``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fedgrpo.ground.machine import be_killed_first
from fedgrpo.rewards.sandboxed.protocol import (
    ENDED,
    FAILED,
    GROUP,
    KILLED,
    LATE,
    RECEIVED,
    TRY,
    WorkerOrder,
)
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits, hide
from fedgrpo.rewards.sandboxed.template import be_template

_LOOK_FOR_PARENT_S = 5.0
_FORK_S = 10.0
"""Longest time in which a template forks."""
_OPEN = [
    "this machine's kernel does not keep rewards from writing what outlives them",
    "name them in the site's policy, if they keep nothing: stateless_rewards",
]


def main(text: str) -> None:
    """Start a template, say what it has or why not, and judge until the other side hangs up."""
    order = WorkerOrder.from_json(text)
    be_killed_first(1000)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    # A template that is gone is told by an error, as is the other side.
    with socket.socket(fileno=order.control) as control, suppress(OSError):
        template = Template.start(order, control)
        # A group's file is open in this process for a while.
        hide()
        hello = template.hello(lambda: os.getppid() == order.parent)
        if hello.startswith(b"{") and template.judged(order.limits) != ENDED:
            hello = json.dumps(_OPEN).encode()
        if hello:
            control.send(hello)
        if hello.startswith(b"{"):
            _serve(control, order, template)


@dataclass(frozen=True)
class Template:
    """The worker's side of a template."""

    number: int
    """Of its process."""
    link: socket.socket
    """To it, and to its child while it stands still."""

    @classmethod
    def start(cls, order: WorkerOrder, control: socket.socket) -> Template:
        """Fork it, before any reward is loaded."""
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker, number = os.getpid(), os.fork()
        if number == 0:
            control.close()
            link.close()
            _end_after(lambda: be_template(theirs, order, worker))
        theirs.close()
        return cls(number, link)

    def hello(self, is_wanted: Callable[[], bool]) -> bytes:
        """Wait for what it says when it has loaded; nothing if it died, or is not wanted."""
        self.link.settimeout(_LOOK_FOR_PARENT_S)
        while is_wanted():
            with suppress(TimeoutError):
                return self.link.recv(65536)
        return b""

    def judged(
        self,
        limits: WorkerLimits,
        descriptors: tuple[int, ...] = (),
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> bytes:
        """Have a child judge, for the limit's time at most, and tell how it ended.

        Parameters
        ----------
        limits:
            Of one group.
        descriptors:
            The group's file and where the answer goes; without them the child tries its sandbox.
        is_wanted:
            Whether anybody waits.

        Raises
        ------
        OSError
            If the template died, or a group may have been left lying where it would read it.
        """
        child = self._forked(GROUP if descriptors else TRY)
        self._stop()
        if descriptors:
            socket.send_fds(self.link, [GROUP], descriptors)
        report = outcome(child, time.monotonic() + limits.wall_s, is_wanted)
        if descriptors:
            self._see_received()
        os.kill(self.number, signal.SIGCONT)
        return report

    def _forked(self, what: bytes) -> int:
        self.link.settimeout(_FORK_S)
        self.link.send(what)
        found = self.link.recv(4)
        if len(found) < 4:
            raise ConnectionError
        return int(struct.unpack("<i", found)[0])

    def _stop(self) -> None:
        """Let it stand still, with all its threads."""
        os.kill(self.number, signal.SIGSTOP)
        _, status = os.waitpid(self.number, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise ConnectionError

    def _see_received(self) -> None:
        """Else the group still lies where the template would read it."""
        self.link.setblocking(False)
        if self.link.recv(1) != RECEIVED:
            raise ConnectionError


def _serve(control: socket.socket, order: WorkerOrder, template: Template) -> None:
    control.settimeout(_LOOK_FOR_PARENT_S)
    while os.getppid() == order.parent:
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        except TimeoutError:
            continue
        if not message:
            return
        report = template.judged(
            order.limits, tuple(descriptors), lambda: os.getppid() == order.parent
        )
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(report)


def outcome(child: int, deadline: float, is_wanted: Callable[[], bool]) -> bytes:
    """Wait for a child, kill it when its time is over, and tell how it ended.

    Raises
    ------
    OSError
        If it is none of this process.
    """
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return KILLED + bytes([os.WTERMSIG(status)])
            return ENDED if status == 0 else FAILED
        left = deadline - time.monotonic()
        if left <= 0 or not is_wanted():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return LATE
        signal.sigtimedwait({signal.SIGCHLD}, min(left, _LOOK_FOR_PARENT_S))


def _end_after(work: Callable[[], None]) -> None:
    """Work and end this process, whatever happens: no thread that a module left may keep it."""
    try:
        work()
    except BaseException:
        # Only what happened while loading: no prompt is seen here.
        sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _end_after(lambda: main(sys.argv[1]))
