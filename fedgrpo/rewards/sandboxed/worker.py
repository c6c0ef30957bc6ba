"""The process in which rewards judge: it has loaded them, has seen no prompt, and forks a child for
every prompt's group.

A child starts from the same state whatever was judged before: the functions' own state, the seeds
of Python's and numpy's global generators (0), the order of sets. It reads its group, gives up
everything that could outlive it (:mod:`fedgrpo.rewards.sandboxed.sandbox`), judges, writes numbers
and ends. What it wrote is never unpickled. Run by
:class:`fedgrpo.rewards.sandboxed.client.RewardWorker`: ``python -m fedgrpo.rewards.sandboxed.worker
ORDER``.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy import random as numpy_random

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.judge import Judge
from fedgrpo.rewards.loading import load_reward
from fedgrpo.rewards.sandboxed.protocol import (
    ENDED,
    FAILED,
    JUDGED,
    KILLED,
    LATE,
    RAISED,
    REFUSED,
    WorkerOrder,
)
from fedgrpo.rewards.sandboxed.sandbox import (
    Confinement,
    WorkerLimits,
    confine,
    die_with,
    leave_nothing,
    sandbox_available,
)
from fedgrpo.rewards.sandboxed.shared_memory import make_private

_LOOK_FOR_PARENT_S = 5.0
_ANSWER = 3
"""The descriptor that :func:`leave_nothing` keeps."""


def main(text: str) -> None:
    """Load, say that it worked or why not, and judge until the other side hangs up."""
    order = WorkerOrder.from_json(text)
    _be_killed_first()
    # Blocked before anything is loaded, so that no thread of a reward's module takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    with socket.socket(fileno=order.control) as control:
        try:
            court = _loaded(order)
        except RewardError as error:
            control.send(json.dumps([error.problem, error.cure]).encode())
            return
        with suppress(ConnectionError):
            control.send(b"[]")
            _serve(control, order, court)


def _be_killed_first() -> None:
    """Where memory runs out, let the kernel take a reward's process and not the node's."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


@dataclass(frozen=True)
class _Court:
    """What judges, and what it may do."""

    judges: tuple[Judge, ...]
    limits: WorkerLimits
    confinement: Confinement

    def judge(self, request: int, answer: int) -> bool:
        """In a child: judge the group in one file and write to another."""
        group = os.pread(request, os.fstat(request).st_size, 0)
        leave_nothing(self.confinement, answer)
        # Python seeds this generator anew in every forked process, numpy does not.
        random.seed(0)
        _write(_answer(self.judges, group))
        return True

    def is_shut_in(self) -> bool:
        """In a child: whether a file can no longer be opened for writing."""
        leave_nothing(self.confinement, os.open(os.devnull, os.O_WRONLY))
        try:
            os.open(os.devnull, os.O_WRONLY)
        except OSError as error:
            return error.errno == errno.EPERM
        return False


def _loaded(order: WorkerOrder) -> _Court:
    """Load every function, and see that a child of this process can leave nothing behind."""
    judges = tuple(Judge.of(name, load_reward(name)) for name in order.names)
    for judge in judges:
        getattr(judge.function, "warm_up", lambda: None)()
    try:
        make_private()
    except OSError as error:
        raise RewardError(
            f"the rewards' modules share memory that cannot be copied ({type(error).__name__})",
            cure="let them make it when they are called, or name the rewards in the site's policy: "
            "stateless_rewards",
        ) from error
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    numpy_random.seed(0)
    court = _Court(judges, order.limits, confine(order.limits))
    gc.collect()
    gc.freeze()
    if not sandbox_available() or _forked(order.limits, court.is_shut_in) != ENDED:
        raise RewardError(
            "this machine's kernel does not keep rewards from writing what outlives them",
            cure="name them in the site's policy, if they keep nothing: stateless_rewards",
        )
    return court


def _serve(control: socket.socket, order: WorkerOrder, court: _Court) -> None:
    control.settimeout(_LOOK_FOR_PARENT_S)
    while os.getppid() == order.parent:
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        except TimeoutError:
            continue
        if not message:
            return
        request, answer = descriptors
        report = _forked(
            order.limits,
            partial(court.judge, request, answer),
            lambda: os.getppid() == order.parent,
        )
        os.close(request)
        os.close(answer)
        control.send(report)


def _forked(
    limits: WorkerLimits, work: Callable[[], bool], is_wanted: Callable[[], bool] = lambda: True
) -> bytes:
    """Let a child do something, for the limit's time at most, and tell how it ended."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        # Nothing may return into the parent's code.
        with suppress(BaseException):
            die_with(parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            if work():
                os._exit(0)
        os._exit(1)
    return _outcome(child, time.monotonic() + limits.wall_s, is_wanted)


def _outcome(child: int, deadline: float, is_wanted: Callable[[], bool]) -> bytes:
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


def _answer(judges: Sequence[Judge], group: bytes) -> bytes:
    """Judge one group; in the child, behind its limits."""
    count, arguments = pickle.loads(group)
    rows = b""
    for number, judge in enumerate(judges):
        try:
            rows += judge(arguments, count).astype("<f8").tobytes()
        except BaseException as error:
            return _failure(number, error)
    return JUDGED + rows


def _failure(number: int, error: BaseException) -> bytes:
    """What may be told of a failure: whose it is, and its class."""
    cause: Any = error.__cause__ if isinstance(error, RewardError) else error
    if cause is None:
        return REFUSED + struct.pack("<H", number)
    return RAISED + struct.pack("<H", number) + type(cause).__name__.encode()[:64]


def _write(answer: bytes) -> None:
    while answer:
        answer = answer[os.write(_ANSWER, answer) :]


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BaseException:
        # Only what happened while loading: no prompt is seen here.
        sys.excepthook(*sys.exc_info())
    # No thread that a reward's module left running may keep this process.
    sys.stderr.flush()
    os._exit(0)
