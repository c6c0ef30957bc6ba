"""Where the lines of a process go: its own, Flower's, and those of whatever else it loads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from fedgrpo.federation.deployment.log.lines import JsonLines, Lines
from fedgrpo.federation.deployment.log.rotated import RotatedFile

FILE, FORMAT, JSON = "FEDGRPO_LOG_FILE", "FEDGRPO_LOG_FORMAT", "json"
"""Variables by which a process's children say the same way, and the value of the second."""
_FOREIGN = ("flwr", "uvicorn", "uvicorn.error")
"""Loggers with handlers of their own, which would write in another format."""


def log_here(file: Path | None = None, *, as_json: bool | None = None) -> None:
    """Have this process and its children log to standard error, and to a file besides.

    Parameters
    ----------
    file:
        See :class:`.rotated.RotatedFile`; None leaves it as it was.
    as_json:
        Whether a line is an object; None leaves it as it was.
    """
    if file is not None:
        os.environ[FILE] = str(file)
    if as_json is not None:
        os.environ[FORMAT] = JSON if as_json else ""
    log_to_stderr()


def log_to_stderr(*, flower: int = logging.INFO) -> None:
    """Say what a person should know, in the way that the process's parent has chosen.

    Parameters
    ----------
    flower:
        Least level of Flower's own lines.
    """
    handlers: list[logging.Handler] = [_Stderr()]
    if file := os.environ.get(FILE):
        handlers.append(RotatedFile(Path(file)))
    for handler in handlers:
        handler.setFormatter(JsonLines() if os.environ.get(FORMAT) == JSON else Lines())
    for name, level in (("fedgrpo", logging.INFO), ("", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = handlers
        logger.propagate = False
        logger.setLevel(level)
    for name in _FOREIGN:
        logging.getLogger(name).filters[:] = [_Taken(handlers, flower)]
    _silence_warnings()
    logging.raiseExceptions = False
    sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)


def _silence_warnings() -> None:
    """Libraries warn their developers, and nobody here is one of those."""
    warnings.simplefilter("ignore")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").disabled = True


class _Stderr(logging.Handler):
    """Standard error as it is at the moment: Flower puts something else in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


class _Taken(logging.Filter):
    """Writes a foreign logger's lines by handlers of ours, and keeps them from its own.

    A filter and not a handler: those libraries put their handlers in place when they are imported,
    which may be later, and leave filters alone.
    """

    def __init__(self, handlers: Sequence[logging.Handler], level: int) -> None:
        super().__init__()
        self._handlers, self._level = handlers, level

    def filter(self, record: logging.LogRecord) -> bool:
        with contextlib.suppress(Exception):
            if record.levelno >= self._level and record.getMessage().strip():
                for handler in self._handlers:
                    handler.handle(record)
        return False


class _Unfailing:
    """A stream that loses what it cannot write: what is printed never decides what is computed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _unfailing(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, _Unfailing) else cast(TextIO, _Unfailing(stream))
