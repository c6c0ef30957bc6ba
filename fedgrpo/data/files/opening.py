"""Opening a file, and what is said of a file or a row that cannot be read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fedgrpo.ground.errors import DataError


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of text, unpacked if its name says that it is packed."""
    with readable(path):
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            with path.open("rb") as file:
                yield file


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say of a file that it cannot be read; raises DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"prompt source {path} cannot be read ({type(error).__name__})",
            cure="check that it is an undamaged file that this process may read",
        ) from None


def one(read: Callable[[], object], place: str | Path, number: int) -> object:
    """A row that its library makes, or the error for it: libraries raise what they like."""
    try:
        return read()
    except Exception as error:
        problem = f"cannot be read ({type(error).__name__})"
        return bad_row(place, number, problem, "mend its values or take it out")


def bad_row(source: str | Path, number: int, problem: str, cure: str) -> DataError:
    """Return the error for one row. ``problem`` continues the sentence and quotes no value."""
    return DataError(f"prompt source {source}, row {number} {problem}", cure=cure)
