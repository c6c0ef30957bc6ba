"""What counts as a failure of foreign code, whatever class its error is of."""

from __future__ import annotations

import threading


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
