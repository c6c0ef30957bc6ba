"""Failures of foreign code, whatever class their errors are of, and code that never ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError within Python's code that runs for longer.

    In the main thread alone, where signals arrive: elsewhere there is no limit. A library's
    machine code is ended only when it returns.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"took longer than {seconds:g} s")

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # Somebody else's alarm goes on.
        rest = max(left - time.monotonic() + began, 1e-3) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, rest, every)


def pass_on_interrupt(error: BaseException) -> None:
    """Raise an interruption again; return for every other error, which is a mishap.

    For ``except BaseException`` around code that reads prompts. An ``except Exception`` would let
    through whatever derives from BaseException alone: the panic of a tokenizer written in Rust, a
    cancelled future, an exit. One prompt could then end what all of them share.

    Nobody interrupts a thread but the main one, so there every error is a mishap. The code around
    must hold no ``yield``, at which a generator that is closed gets its GeneratorExit.

    Raises
    ------
    KeyboardInterrupt, GeneratorExit
        The error itself, in the main thread.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and isinstance(error, KeyboardInterrupt | GeneratorExit):
        raise error
