from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

from fedgrpo.errors import RewardError
from fedgrpo.rewards import worker
from fedgrpo.rewards.sandbox import WorkerLimits, sandbox_available
from fedgrpo.rewards.worker_protocol import ENDED, FAILED, KILLED, LATE, WorkerOrder

ORDER = WorkerOrder(0, 1, ("exact_match",), WorkerLimits(wall_s=0.3))

pytestmark = pytest.mark.skipif(not sandbox_available(), reason="needs Linux's seccomp filters")


@pytest.fixture(autouse=True)
def as_in_the_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "make_private", lambda: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    gc.unfreeze()


def test_the_sandbox_is_tried_before_the_first_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [judge.name for judge in worker._loaded(ORDER)] == ["exact_match"]
    monkeypatch.setattr(worker, "leave_nothing", lambda limits, keep: None)
    with pytest.raises(RewardError, match="kernel does not keep rewards"):
        worker._loaded(ORDER)


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

    limits = ORDER.limits
    assert worker._forked(limits, lambda: True) == ENDED
    assert worker._forked(limits, lambda: False) == FAILED
    assert worker._forked(limits, fails) == FAILED
    assert worker._forked(limits, crashes) == KILLED + b"\x09"
    assert worker._forked(limits, hangs) == LATE
    assert worker._forked(limits, hangs, is_wanted=lambda: False) == LATE


def test_an_order_travels_as_text() -> None:
    assert WorkerOrder.from_json(ORDER.to_json()) == ORDER
