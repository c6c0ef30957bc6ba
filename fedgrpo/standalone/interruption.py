"""Ctrl-C and SIGTERM as a request, and warnings as messages."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fedgrpo.grpo.learning.health import TrainingWarning

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Lend a function that tells whether the user has asked to stop.

    The first signal lets the step under way finish. The second does what it did before: it ends the
    process, and what was done since the last state is lost. Outside the main thread, where Python
    delivers no signal, nobody can ask.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def training_warnings(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass the trainer's warnings on as text; those of anybody else go where they went before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", TrainingWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, TrainingWarning):
                tell(str(message))
            else:
                others(message, category, *place, **more)

        warnings.showwarning = show
        yield
