"""Rows in JSON: one object a line, or one list of objects."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fedgrpo.data.files.opening import bad_row, opened
from fedgrpo.ground.errors import DataError

_CHUNK = 2**20
"""Bytes that are read together of a line that is passed over."""
_BOM = b"\xef\xbb\xbf"
_ONCE = "take out the value that does not belong there"
_DIGITS = 4000
"""Most digits of a whole number: a few less than Python reads."""


def read_jsonl(path: Path, most_bytes: int | None) -> Iterator[tuple[int, object]]:
    """Each line's object with the line's number; a line of more bytes is not held in memory."""
    with opened(path) as file:
        for number, line in enumerate(_lines(file, most_bytes), start=1):
            if line is None:
                problem = f"is a line of more than {most_bytes} bytes"
                yield number, bad_row(path, number, problem, "shorten it or take it out")
                continue
            # Some editors begin a UTF-8 file with a byte order mark, which JSON does not allow.
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip():
                yield number, _parse(text, path, number)


def read_json(path: Path, _: int | None) -> Iterator[tuple[int, object]]:
    """One list of objects. Also lines under this ending, as some tools write them."""
    with opened(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    if not text.startswith("["):
        yield from read_jsonl(path, _)
        return
    try:
        yield from enumerate(_items(text, path), start=1)
    except (ValueError, RecursionError):
        raise DataError(
            f"prompt source {path} is not valid JSON",
            cure="write one list of objects, or one object on each line of a .jsonl file",
        ) from None


def _items(text: str, path: Path) -> Iterator[object]:
    """Items of a list, one after another, so that a bad one says nothing of the others.

    Raises ValueError where the list cannot be followed further.
    """
    reader, at = _Reader(), _begins(text, 1)
    for number in itertools.count(1):
        if text.startswith("]", at):
            break
        value, at = reader.item(text, at)
        yield bad_row(path, number, *reader.problem) if reader.problem else value
        comma = text.startswith(",", at)
        if not comma and not text.startswith("]", at):
            raise ValueError("no list")
        at = _begins(text, at + comma)
    if at + 1 < len(text):
        raise ValueError("more behind the list")


def _begins(text: str, at: int) -> int:
    """Where the next sign of JSON stands."""
    while text[at : at + 1] in {" ", "\t", "\r", "\n"}:
        at += 1
    return at


def _lines(file: BinaryIO, most: int | None) -> Iterator[bytes | None]:
    """Lines of a file; None for one that is too long."""
    room = -1 if most is None else most + 1
    while line := file.readline(room):
        fits = most is None or len(line) <= most or line.endswith(b"\n")
        yield line if fits else None
        while not fits and line and not line.endswith(b"\n"):
            line = file.readline(_CHUNK)


def _parse(line: bytes, path: Path, number: int) -> object:
    """The line's value, or the error for it: one bad line says nothing of the others."""
    reader = _Reader()
    # JSON's and Unicode's own errors carry the whole line, so they are left behind.
    try:
        value = reader.line(line.decode("utf-8"))
    except UnicodeDecodeError:
        return bad_row(path, number, "is not UTF-8", "save the file as UTF-8")
    except (ValueError, RecursionError):
        return bad_row(path, number, "is not valid JSON", "write one JSON object on each line")
    return bad_row(path, number, *reader.problem) if reader.problem else value


class _Reader:
    """JSON of which one value may be one that no row should have.

    Attributes
    ----------
    problem:
        Of the value read last, with its cure; empty if there is none.
    """

    def __init__(self) -> None:
        self.problem: tuple[str, str] | tuple[()] = ()
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_int=self._whole)

    def line(self, text: str) -> object:
        """A value that is all of a text; raises ValueError if it is not JSON."""
        return self._decoder.decode(text)

    def item(self, text: str, at: int) -> tuple[object, int]:
        """The value that begins at a place of a text, and where what comes behind it begins;
        raises ValueError if it is not JSON.
        """
        self.problem = ()
        value, end = self._decoder.raw_decode(text, at)
        return value, _begins(text, end)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self.problem = "has a name twice, and only one value counts", _ONCE
        return found

    def _whole(self, digits: str) -> int:
        if len(digits) > _DIGITS:
            self.problem = f"has a number of more than {_DIGITS} digits", "write it as a text"
            return 0
        return int(digits)
