from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedgrpo.rewards.sandboxed import template, worker
from fedgrpo.rewards.sandboxed.protocol import ENDED, FAILED, KILLED, LATE, WorkerOrder
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits, sandbox_available

ORDER = WorkerOrder(0, 1, ("exact_match",), WorkerLimits(wall_s=0.3))

pytestmark = pytest.mark.skipif(not sandbox_available(), reason="needs Linux's seccomp filters")


def in_a_process_of_its_own(check: Callable[[], None]) -> None:
    """What a worker does to itself cannot be undone."""
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def told(order: WorkerOrder) -> object:
    """What a worker says when it has started a template."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        text = replace(order, control=theirs.detach(), parent=os.getppid()).to_json()
        worker._end_after(lambda: worker.main(text))
    theirs.close()
    with ours:
        said = json.loads(ours.recv(65536))
    os.waitpid(child, 0)
    return said


@pytest.mark.slow
def test_the_sandbox_is_tried_before_the_first_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(ORDER) == {"abstains": [False], "spans": []}
    monkeypatch.setattr(template, "confine", lambda limits, keep: None)
    monkeypatch.setattr(template, "leave_nothing", lambda confinement: None)
    said = told(ORDER)
    assert isinstance(said, list)
    assert "kernel does not keep rewards" in said[0]


def test_memory_that_cannot_be_made_private_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise OSError(13, "a device")

    monkeypatch.setattr(template, "make_private", refuses)
    said = told(ORDER)
    assert isinstance(said, list)
    assert "share memory that cannot be copied" in said[0]


def test_how_a_child_ended_is_told_apart() -> None:
    def ended(work: Callable[[], object], *, is_wanted: bool = True) -> bytes:
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            work()
            os._exit(1)
        return worker.outcome(child, time.monotonic() + 0.3, lambda: is_wanted)

    def check() -> None:
        assert ended(lambda: os._exit(0)) == ENDED
        assert ended(lambda: None) == FAILED
        assert ended(lambda: signal.raise_signal(signal.SIGKILL)) == KILLED + b"\x09"
        assert ended(signal.pause) == LATE
        assert ended(signal.pause, is_wanted=False) == LATE

    in_a_process_of_its_own(check)


def test_an_order_travels_as_text() -> None:
    assert WorkerOrder.from_json(ORDER.to_json()) == ORDER
