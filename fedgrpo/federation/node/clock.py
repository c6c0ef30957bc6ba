"""The time by which a node's answers leave, as something that tests can put in its place."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

T = TypeVar("T")


class LateError(Exception):
    """Work was not done when its time was over."""


class Clock(Protocol):
    """Tells the time in seconds, from no particular start, and waits."""

    def now(self) -> float:
        """Seconds."""

    def wait_until(self, moment: float) -> None:
        """Return at that time, or at once if it is over."""

    def run(self, work: Callable[[], T], until: float) -> T:
        """Do work, until a time at the most; raises LateError if it was not done in time.

        Parameters
        ----------
        until:
            When to give up; infinity never does.
        """


class SystemClock:
    """The machine's own, on the scale of :func:`time.monotonic`."""

    def now(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        """See :class:`Clock`."""
        while (left := moment - self.now()) > 0:
            time.sleep(left)

    def run(self, work: Callable[[], T], until: float) -> T:
        """See :class:`Clock`: in a thread, which is left behind where it hangs.

        A deployed node's process ends with its message, and the thread with it.
        """
        if math.isinf(until):
            return work()
        done: SimpleQueue[Callable[[], T]] = SimpleQueue()
        threading.Thread(target=lambda: done.put(_outcome(work)), daemon=True).start()
        try:
            outcome = done.get(timeout=max(0.0, until - self.now()))
        except Empty:
            raise LateError from None
        return outcome()


def _outcome(work: Callable[[], T]) -> Callable[[], T]:
    """Do work now, and give back or raise later what came of it."""
    try:
        result = work()
    except BaseException as error:
        # In the thread that waits, an interruption would look like its own.
        stopped = isinstance(error, KeyboardInterrupt | GeneratorExit)
        failure = RuntimeError(f"work raised {type(error).__name__}") if stopped else error

        def fail() -> T:
            raise failure

        return fail
    return lambda: result
