"""Read raw rows from JSONL, parquet and Hugging Face datasets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from fedgrpo.ground.errors import DataError

Rows = Iterable[Mapping[str, Any]]

_CHUNK = 2**20
"""Bytes that are read together of a line that is passed over."""


def raw_rows(
    source: str, split: str, most_bytes: int | None = None
) -> Iterator[tuple[int, object]]:
    """Yield every row with its number, from 1, unchecked; in JSONL the number is that of the line,
    and in the place of a line that cannot be read stands a :class:`DataError`.

    A line of more than ``most_bytes`` is not even held in memory; rows of other kinds of files are
    made by their libraries, and held against limits afterwards.

    Raises
    ------
    DataError
        If the source cannot be read.
    """
    if source.startswith("hf:"):
        return enumerate(_read_hub(source.removeprefix("hf:"), split), start=1)
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"prompt source {source} does not exist", cure="check the path")
    if path.is_dir():
        return enumerate(_read_saved(path, split), start=1)
    if path.suffix == ".jsonl":
        return _read_jsonl(path, most_bytes)
    if path.suffix == ".parquet":
        return enumerate(_read_parquet(path), start=1)
    raise DataError(
        f"prompt source {source} is of an unknown kind",
        cure="give a .jsonl or .parquet file, a directory made by datasets.save_to_disk, "
        "or hf:NAME",
    )


def _read_jsonl(path: Path, most_bytes: int | None) -> Iterator[tuple[int, object]]:
    with _readable(path), path.open("rb") as file:
        for number, line in enumerate(_lines(file, most_bytes), start=1):
            if line is None:
                problem = f"is a line of more than {most_bytes} bytes"
                yield number, bad_row(path, number, problem, "shorten it or take it out")
                continue
            # Some editors begin a UTF-8 file with a byte order mark, which JSON does not allow.
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, _parse(text, path, number)


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
    # JSON's and Unicode's own errors carry the whole line, so they are left behind.
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return bad_row(path, number, "is not UTF-8", "save the file as UTF-8")
    except (ValueError, RecursionError):
        return bad_row(path, number, "is not valid JSON", "write one JSON object on each line")


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with _readable(path), ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise DataError(
            f"prompt source {path} is not a readable parquet file ({type(error).__name__})",
            cure="write it again, for example with pyarrow.parquet.write_table",
        ) from None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"prompt source {path} cannot be read ({type(error).__name__})",
            cure="check that it is an undamaged file that this process may read",
        ) from None


def _read_saved(path: Path, split: str) -> Rows:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except Exception as error:
        raise DataError(
            f"prompt source {path} is not a saved dataset ({type(error).__name__})",
            cure="give a directory made by datasets.save_to_disk",
        ) from None
    if not isinstance(loaded, DatasetDict):
        return cast(Rows, loaded)
    if split not in loaded:
        raise DataError(
            f"prompt source {path} has no split {split!r}",
            cure=f"choose one of {', '.join(loaded)}",
        )
    return cast(Rows, loaded[split])


def _read_hub(name: str, split: str) -> Rows:
    from datasets import load_dataset

    try:
        return cast(Rows, load_dataset(name, split=split))
    except Exception as error:
        # Anything may go wrong: no network, no such name or split, a gated or broken dataset.
        raise DataError(
            f"dataset {name!r}, split {split!r}, cannot be loaded ({type(error).__name__})",
            cure=f"see why with datasets.load_dataset({name!r}, split={split!r}), "
            "or save it to disk and name that",
        ) from None


def bad_row(source: str | Path, number: int, problem: str, cure: str) -> DataError:
    """Return the error for one row. ``problem`` continues the sentence and quotes no value."""
    return DataError(f"prompt source {source}, row {number} {problem}", cure=cure)
