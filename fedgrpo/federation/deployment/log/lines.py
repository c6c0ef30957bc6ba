"""A line of the log, for people and for programs. Times are UTC, to the second."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from typing import Any

from fedgrpo.federation.deployment.log.codes import LOGGED

LONGEST = 1 << 15
"""Characters of a line, and of a traceback, that are kept: foreign errors quote what they like."""


class Lines(logging.Formatter):
    """``2026-11-27T13:02:18Z warning the model process died (code -9) [model-died]; cure: ...``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(level)s %(message)s%(ending)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Write the time, in UTC."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Write a traceback, indented: none of its lines begins like one of the log's."""
        traced = super().formatException(ei)[-LONGEST:]  # What was raised stands at its end.
        return textwrap.indent("\n".join(map(_unmoving, traced.splitlines())), "    ", bool)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        """Write the line without a traceback."""
        record.level, record.message = record.levelname.lower(), plain(record.message)
        code, cure = code_of(record), plain(cure_of(record))
        record.ending = (f" [{code}]" if code else "") + (f"; cure: {cure}" if cure else "")
        return super().formatMessage(record)


class JsonLines(Lines):
    """The same as an object a line: time, level, logger, message, and what else there is."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the object."""
        traced = self.formatException(record.exc_info) if record.exc_info else ""
        more = {
            "code": code_of(record),
            "cure": cure_of(record)[:LONGEST],
            "figures": getattr(record, "figures", None),
            "traceback": traced,
        }
        said = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:LONGEST],
            **{name: value for name, value in more.items() if value},
        }
        return json.dumps(said, default=str)


def plain(text: str) -> str:
    """Write a text as one line: what others had a part in passes for no line of its own, and moves
    no cursor.
    """
    joined = "; ".join(part.strip() for part in text[:LONGEST].splitlines() if part.strip())
    return _unmoving(joined)


def _unmoving(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def code_of(record: logging.LogRecord) -> str:
    """Code of docs/troubleshooting.md that a line carries; empty if nobody need act on it."""
    return str(getattr(record, "code", ""))


def cure_of(record: logging.LogRecord) -> str:
    """What to do: as who said it knows, or as the table has it."""
    known = LOGGED.get(code_of(record))
    return str(getattr(record, "cure", "")) or (known.cure if known else "")
