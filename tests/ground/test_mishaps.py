"""Code without end, ended."""

import signal
import threading
from collections.abc import Iterator

import pytest

from fedgrpo.ground.mishaps import at_most


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Alarms of somebody else's, who rings once in an hour."""
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    left = signal.setitimer(signal.ITIMER_REAL, 3600.0)
    yield heard
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *left)


def test_what_takes_too_long_is_ended_and_somebody_elses_alarm_goes_on(alarms: list[int]) -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.02 s"), at_most(0.02):
        _spin()
    with at_most(60.0):
        pass
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 3500.0 < left <= 3600.0
    signal.raise_signal(signal.SIGALRM)
    assert alarms == [signal.SIGALRM]


def _spin() -> None:
    while True:
        pass


def test_other_threads_have_no_limit() -> None:
    def spin() -> None:
        with at_most(1e-6):
            done.append(sum(range(10**5)))

    done: list[int] = []
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
    assert len(done) == 1
