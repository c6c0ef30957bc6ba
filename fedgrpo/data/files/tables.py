"""Rows in tables: CSV, in which spreadsheets save, and parquet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedgrpo.data.files.opening import bad_row, one, opened, readable
from fedgrpo.ground.errors import DataError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_NAME = 100
"""Most characters of a name that an error tells."""


def read_csv(path: Path, _: int | None) -> Iterator[tuple[int, object]]:
    """Rows under one line of names; a field that is empty has no value."""
    with opened(path) as file:
        content = file.read()
    # What is no UTF-8 becomes half a surrogate pair, which no UTF-8 has: so its row is known.
    text = content.decode("utf-8-sig", "surrogateescape")
    csv.field_size_limit(max(len(text), 2**17))
    lines = list(io.StringIO(text, newline=""))
    try:
        records = (fields for fields in _records(lines, _delimiter(text)) if fields != [])
        names = next(records, ()) or ()
        _check_names(names, path)
        for number, fields in enumerate(records, start=1):
            yield number, _table_row(names, fields, path, number)
    except csv.Error:
        raise DataError(
            f"prompt source {path} is not a readable CSV file", cure="write it again as .jsonl"
        ) from None


def _records(lines: Sequence[str], delimiter: str) -> Iterator[list[str] | None]:
    """Fields of each record; None for a line with a quote that nothing closes, which would take
    all that comes behind it along.
    """
    at = 0
    while at < len(lines):
        reader, began = csv.reader(lines[at:], delimiter=delimiter), at
        for fields in reader:
            end = at + reader.line_num
            if end == len(lines) and _is_open(lines[began:], delimiter):
                break
            yield fields
            began = end
        else:
            return
        yield None
        at = began + 1


def _is_open(record: Sequence[str], delimiter: str) -> bool:
    """Whether one more quote would still belong to the record."""
    ended = [*record[:-1], f"{record[-1]}\n", '"']
    return sum(1 for _ in csv.reader(ended, delimiter=delimiter)) == 1


def _table_row(
    names: Sequence[str], fields: list[str] | None, path: Path, number: int
) -> Mapping[str, Any] | DataError:
    if fields is None:
        return bad_row(path, number, "has a quote that nothing closes", "close it, or double it")
    if len(fields) > len(names):
        cure = "put fields with commas or line breaks in quotes"
        return bad_row(path, number, "has more fields than there are names", cure)
    if any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
        return bad_row(path, number, "is not UTF-8", "save the file as UTF-8")
    lacking = [""] * (len(names) - len(fields))
    return {name: value or None for name, value in zip(names, fields + lacking, strict=True)}


def _delimiter(text: str) -> str:
    """What stands between names: a tab, a comma, or what spreadsheets write where that is a
    decimal's.
    """
    names = text.partition("\n")[0]
    return next((each for each in "\t,;" if each in names), ",")


def _check_names(names: Sequence[str], path: Path) -> None:
    """Refuse a table of which one column would hide another."""
    for name, times in Counter(names).items():
        if times > 1:
            raise DataError(
                f"prompt source {path} has {times} columns of the name {name[:_NAME]!r}",
                cure="give each column a name of its own",
            )


def read_parquet(path: Path) -> Iterator[object]:
    """Rows of a parquet file, which are never all in memory; raises DataError."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with readable(path), ParquetFile(path) as file:
            count = 0
            for batch in file.iter_batches(batch_size=1024):
                yield from _values(batch, path, count)
                count += len(batch)
    except ArrowException as error:
        raise DataError(
            f"prompt source {path} is not a readable parquet file ({type(error).__name__})",
            cure="write it again, for example with pyarrow.parquet.write_table",
        ) from None


def _values(batch: RecordBatch, path: Path, before: int) -> Iterator[object]:
    """Rows of a batch as Python's own values; one by one where one of them has none."""
    try:
        rows = batch.to_pylist()
    except Exception:
        singles = enumerate((batch.slice(i, 1) for i in range(len(batch))), start=before + 1)
        rows = [one(partial(_single, each), path, number) for number, each in singles]
    yield from rows


def _single(batch: RecordBatch) -> object:
    return batch.to_pylist()[0]
