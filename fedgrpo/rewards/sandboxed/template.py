"""The process from which those that judge are forked: it has loaded the rewards and sees no prompt.

What a reward's module leaves behind when it is imported runs in here, so this process is shut in as
soon as it has loaded, is never given a group, and stands still while one is judged. The children
are its worker's, not its own: it never learns how one ended. A child is shut in further before it
is given its group.
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
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy import random as numpy_random

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.calling.judge import Judge, verdicts
from fedgrpo.rewards.loading import load_metric, load_reward
from fedgrpo.rewards.registry import RewardFunction
from fedgrpo.rewards.sandboxed.isolated import runs_model
from fedgrpo.rewards.sandboxed.protocol import (
    JUDGED,
    RAISED,
    RECEIVED,
    REFUSED,
    TRY,
    WorkerOrder,
)
from fedgrpo.rewards.sandboxed.sandbox import (
    Confinement,
    confine,
    count_threads,
    die_with,
    fork_beside,
    keep_only,
    leave_nothing,
)
from fedgrpo.rewards.sandboxed.shared_memory import make_private

_THREADS_END_S = 1.0
"""Time in which threads that a module has joined must be gone."""
_ANSWER = 3
"""The descriptor that :func:`keep_only` keeps."""


def be_template(link: socket.socket, order: WorkerOrder, worker: int) -> None:
    """Load, say what there is or why not, and fork until the worker hangs up.

    Parameters
    ----------
    link:
        To the worker.
    order:
        What to load, and the limits.
    worker:
        The worker's process number.
    """
    die_with(worker)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        court = _loaded(order, link)
    except RewardError as error:
        link.send(json.dumps([error.problem, error.cure]).encode())
        return
    abstains = [bool(getattr(j.function, "abstains", False)) for j in court.judges]
    link.send(json.dumps({"abstains": abstains, "spans": court.spans}).encode())
    while message := link.recv(1):
        child = fork_beside()
        if child == 0:
            _be_child(court, message, worker)
        link.send(struct.pack("<i", child))


def _be_child(court: _Court, message: bytes, worker: int) -> None:
    """Never returns: nothing may run on in the template's code."""
    with suppress(BaseException):
        die_with(worker)
        if court.is_shut_in() if message == TRY else court.judge():
            os._exit(0)
    os._exit(1)


@dataclass(frozen=True)
class _Court:
    """What judges, and what it may do."""

    judges: tuple[Judge, ...]
    metrics: tuple[Judge, ...]
    spans: tuple[tuple[float, float], ...]
    confinement: Confinement
    link: socket.socket

    def judge(self) -> bool:
        """In a child: take a group, judge it and write numbers."""
        leave_nothing(self.confinement)
        _, (request, answer), _, _ = socket.recv_fds(self.link, 1, 2)
        self.link.send(RECEIVED)
        self.link.detach()
        group = _content(request)
        keep_only(answer, self.confinement)
        # The same for every group; so is numpy's, which stands where the template left it.
        random.seed(0)
        _write(_answer(self.judges, self.metrics, group))
        return True

    def is_shut_in(self) -> bool:
        """In a child: whether a file can no longer be opened, not even to read."""
        leave_nothing(self.confinement)
        try:
            os.open(os.devnull, os.O_RDONLY)
        except OSError as error:
            return error.errno == errno.EPERM
        return False


def _loaded(order: WorkerOrder, link: socket.socket) -> _Court:
    """Load every function, and give up what could connect the children of this process."""
    judges = tuple(_judge(name) for name in order.names)
    loaded = {name: load_metric(name) for name in order.metrics}
    metrics = tuple(_metric(name, each.function) for name, each in loaded.items())
    for judge in (*judges, *metrics):
        getattr(judge.function, "warm_up", lambda: None)()
    _refuse_threads()
    try:
        make_private()
    except OSError as error:
        raise RewardError(
            f"the rewards' modules share memory that cannot be copied ({type(error).__name__})",
            cure="let them make it when they are called, or name the rewards in the site's policy: "
            "stateless_rewards",
        ) from error
    numpy_random.seed(0)
    gc.collect()
    gc.freeze()
    spans = tuple(metric.span for metric in loaded.values())
    return _Court(judges, metrics, spans, confine(order.limits, link.fileno()), link)


def _judge(name: str) -> Judge:
    function = load_reward(name)
    _refuse_model(name, function)
    return Judge.of(name, function)


def _metric(name: str, function: RewardFunction) -> Judge:
    _refuse_model(name, function, "metric")
    return Judge.of(name, function, "metric")


def _refuse_model(name: str, function: RewardFunction, kind: str = "reward") -> None:
    if runs_model(name, function):
        raise RewardError(
            f"{kind} {name!r} runs a model and is no built-in name, so it would be "
            "loaded beside the prompts",
            cure="name it in the site's policy, if it keeps nothing between calls: "
            "stateless_rewards; or use a built-in name",
        )


def _refuse_threads() -> None:
    """A forked process must not find a lock that a thread held, which it has not."""
    deadline = time.monotonic() + _THREADS_END_S
    while (count := count_threads()) > 1:
        if time.monotonic() > deadline:
            raise RewardError(
                f"the rewards' modules left {count - 1} threads running when they were imported",
                cure="let them start threads when they are called, or name the rewards in the "
                "site's policy: stateless_rewards",
            )
        time.sleep(0.01)


def _content(file: int) -> bytes:
    """All of a file in memory."""
    found = b""
    while more := os.pread(file, 1 << 20, len(found)):
        found += more
    return found


def _answer(judges: Sequence[Judge], metrics: Sequence[Judge], group: bytes) -> bytes:
    """Judge one group, then measure it; in the child, behind its limits. A metric that fails costs
    its own figure alone.
    """
    count, arguments = pickle.loads(group)
    rows = b""
    for number, verdict in enumerate(verdicts(judges, arguments, count)):
        if isinstance(verdict, RewardError):
            return _failure(number, verdict)
        rows += verdict.astype("<f8").tobytes()
    for verdict in verdicts(metrics, arguments, count):
        told = np.full(count, np.nan) if isinstance(verdict, RewardError) else verdict
        rows += told.astype("<f8").tobytes()
    return JUDGED + rows


def _failure(number: int, error: RewardError) -> bytes:
    """What may be told of a failure: whose it is, and its class."""
    cause = error.__cause__
    if cause is None:
        return REFUSED + struct.pack("<H", number)
    return RAISED + struct.pack("<H", number) + type(cause).__name__.encode()[:64]


def _write(answer: bytes) -> None:
    while answer:
        answer = answer[os.write(_ANSWER, answer) :]
