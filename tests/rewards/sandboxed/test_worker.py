from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

import pytest

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.sandboxed import worker
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


def test_the_sandbox_is_tried_before_the_first_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        assert [judge.name for judge in worker._loaded(ORDER).judges] == ["exact_match"]
        monkeypatch.setattr(worker, "leave_nothing", lambda confinement, keep: None)
        with pytest.raises(RewardError, match="kernel does not keep rewards"):
            worker._loaded(ORDER)

    in_a_process_of_its_own(check)


def test_memory_that_cannot_be_made_private_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise OSError(13, "a device")

    monkeypatch.setattr(worker, "make_private", refuses)
    with pytest.raises(RewardError, match="share memory that cannot be copied"):
        worker._loaded(ORDER)


def test_how_a_child_ended_is_told_apart() -> None:
    def fails() -> bool:
        raise ValueError("patient Zyx")

    def crashes() -> bool:
        signal.raise_signal(signal.SIGKILL)
        return True

    def hangs() -> bool:
        signal.pause()
        return True

    def check() -> None:
        limits = ORDER.limits
        assert worker._forked(limits, lambda: True) == ENDED
        assert worker._forked(limits, lambda: False) == FAILED
        assert worker._forked(limits, fails) == FAILED
        assert worker._forked(limits, crashes) == KILLED + b"\x09"
        assert worker._forked(limits, hangs) == LATE
        assert worker._forked(limits, hangs, is_wanted=lambda: False) == LATE

    in_a_process_of_its_own(check)


def test_an_order_travels_as_text() -> None:
    assert WorkerOrder.from_json(ORDER.to_json()) == ORDER
