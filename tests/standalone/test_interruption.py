"""A first signal asks, a second one ends; and outside the main thread nobody can ask."""

import os
import signal
import threading

import pytest

from fedgrpo.standalone.interruption import stop_requests


def test_the_first_signal_asks_and_the_second_ends_at_once() -> None:
    def interrupted_twice() -> None:
        with stop_requests() as stop:
            assert not stop()
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            os.kill(os.getpid(), signal.SIGINT)

    # Ignored, where the tests run in a shell's background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_twice()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_may_run_in_another_thread() -> None:
    asked: list[bool] = []

    def work() -> None:
        with stop_requests() as stop:
            asked.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]
