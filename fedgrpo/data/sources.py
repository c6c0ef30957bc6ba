"""Read raw rows from JSONL, JSON, CSV, parquet and Hugging Face datasets."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from fedgrpo.ground.errors import DataError
from fedgrpo.settings import DataSettings

Rows = Iterable[Mapping[str, Any]]

_CHUNK = 2**20
"""Bytes that are read together of a line that is passed over."""
_BOM = b"\xef\xbb\xbf"
_ONCE = "take out the value that does not belong there"
_NAMES, _NAME = 20, 100
"""Most columns that an error names, and most characters of a name."""


@dataclass(frozen=True)
class Source:
    """Where rows come from, and what their columns are called there.

    Attributes
    ----------
    place:
        A file, a directory made by ``datasets.save_to_disk``, or ``hf:NAME``.
    split, config:
        Of a Hugging Face dataset; files have none.
    columns:
        What each column is called in the source, by the name that is asked for.
    system_prompt:
        First message of every chat that has none; empty leaves prompts as they are.
    """

    place: str
    split: str = "train"
    config: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    system_prompt: str = ""

    @classmethod
    def of(cls, data: DataSettings, place: str = "") -> Self:
        """What the settings say of a source: their own, or another place read the same way."""
        own = place or data.source
        return cls(own, data.split, data.config, data.column_names(), data.system_prompt)


def raw_rows(source: Source, most_bytes: int | None = None) -> Iterator[tuple[int, object]]:
    """Yield every row with its number, from 1, under the names that are asked for; in JSONL the
    number is that of the line, and in the place of a row that cannot be read stands a
    :class:`DataError`.

    A line of more than ``most_bytes`` is not even held in memory; rows of other kinds of files are
    made by their libraries, and held against limits afterwards.

    Raises
    ------
    DataError
        If the source cannot be read.
    """
    for number, raw in _as_they_are(source, most_bytes):
        if source.columns and isinstance(raw, Mapping):
            yield number, _renamed(raw, source, number)
        else:
            yield number, raw


def _renamed(raw: Mapping[str, Any], source: Source, number: int) -> object:
    """Give columns the names that are asked for; the others keep theirs."""
    lacking = [theirs for theirs in source.columns.values() if theirs not in raw]
    if lacking:
        problem = f"has no column {lacking[0]!r}, which data.columns names; {columns_of(raw)}"
        return bad_row(source.place, number, problem, "name one of these in data.columns")
    taken = set(source.columns.values()) | set(source.columns)
    others = {name: value for name, value in raw.items() if name not in taken}
    return {ours: raw[theirs] for ours, theirs in source.columns.items()} | others


def columns_of(raw: Mapping[Any, Any]) -> str:
    """Say which columns a row has. Names of columns are as public as a file's format."""
    names = [repr(str(name)[:_NAME]) for name in list(raw)[:_NAMES]]
    more = f" and {len(raw) - _NAMES} more" if len(raw) > _NAMES else ""
    return f"it has {', '.join(names) or 'none'}{more}"


def _as_they_are(source: Source, most_bytes: int | None) -> Iterator[tuple[int, object]]:
    if source.place.startswith("hf:"):
        return enumerate(_read_hub(source), start=1)
    path = Path(source.place).expanduser()
    if not path.exists():
        raise DataError(f"prompt source {source.place} does not exist", cure="check the path")
    if path.is_dir():
        return enumerate(_read_saved(path, source.split), start=1)
    if not path.is_file():
        raise DataError(
            f"prompt source {source.place} is no file but a pipe or a device, which is read once",
            cure="write the prompts into a file: they are read more than once",
        )
    kind = path.name.lower().removesuffix(".gz")
    if most_bytes is not None and kind.endswith((".json", ".csv")):
        raise DataError(
            f"prompt source {source.place} is read as a whole, and a node reads row by row, so "
            "that one bad row cannot cost the others",
            cure="write it as .jsonl, for example with datasets.load_dataset"
            f"({kind.rpartition('.')[2]!r}, data_files=...)['train'].to_json('prompts.jsonl')",
        )
    if kind.endswith(".parquet"):
        return enumerate(_read_parquet(path), start=1)
    for ending, read in _TEXTS.items():
        if kind.endswith(ending):
            return read(path, most_bytes)
    raise DataError(
        f"prompt source {source.place} is of an unknown kind",
        cure="give a .jsonl, .json, .csv or .parquet file (the first three also with .gz), a "
        "directory made by datasets.save_to_disk, or hf:NAME",
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file of text, unpacked if its name says that it is packed."""
    with _readable(path):
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            with path.open("rb") as file:
                yield file


def _read_jsonl(path: Path, most_bytes: int | None) -> Iterator[tuple[int, object]]:
    with _opened(path) as file:
        for number, line in enumerate(_lines(file, most_bytes), start=1):
            if line is None:
                problem = f"is a line of more than {most_bytes} bytes"
                yield number, bad_row(path, number, problem, "shorten it or take it out")
                continue
            # Some editors begin a UTF-8 file with a byte order mark, which JSON does not allow.
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip():
                yield number, _parse(text, path, number)


def _read_json(path: Path, _: int | None) -> Iterator[tuple[int, object]]:
    """One list of objects. Also lines under this ending, as some tools write them."""
    with _opened(path) as file:
        content = file.read()
    try:
        rows = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object)
    except _TwiceError:
        if content.removeprefix(_BOM).lstrip().startswith(b"["):
            raise DataError(
                f"prompt source {path} has a row in which a name stands twice",
                cure="take one of them out; of rows written as .jsonl the number is told",
            ) from None
        rows = None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        yield from _read_jsonl(path, _)
        return
    yield from enumerate(rows, start=1)


def _read_csv(path: Path, _: int | None) -> Iterator[tuple[int, object]]:
    """Rows under one line of names; a field that is empty has no value."""
    with _opened(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"prompt source {path} is not UTF-8", cure="save it as UTF-8") from None
    csv.field_size_limit(max(len(text), 2**17))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        _check_names(reader.fieldnames or (), path)
        for number, row in enumerate(reader, start=1):
            if None in row:
                cure = "put fields with commas or line breaks in quotes"
                yield number, bad_row(path, number, "has more fields than there are names", cure)
                continue
            yield number, {name: value or None for name, value in row.items()}
    except csv.Error:
        raise DataError(
            f"prompt source {path} is not a readable CSV file", cure="write it again as .jsonl"
        ) from None


def _delimiter(text: str) -> str:
    """What stands between names: a comma, or what spreadsheets write where that is a decimal's."""
    names = text.partition("\n")[0]
    return "," if "," in names else next((each for each in ";\t" if each in names), ",")


def _check_names(names: Sequence[str], path: Path) -> None:
    """Refuse a table of which one column would hide another."""
    for name, times in Counter(names).items():
        if times > 1:
            raise DataError(
                f"prompt source {path} has {times} columns of the name {name[:_NAME]!r}",
                cure="give each column a name of its own",
            )


_TEXTS = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}
"""Readers of files of text, by the ending of their names."""


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
        return json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except _TwiceError:
        return bad_row(path, number, "has a name twice, and only one value counts", _ONCE)
    except UnicodeDecodeError:
        return bad_row(path, number, "is not UTF-8", "save the file as UTF-8")
    except (ValueError, RecursionError):
        return bad_row(path, number, "is not valid JSON", "write one JSON object on each line")


class _TwiceError(Exception):
    """An object in which one value hides another."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON as a mapping; raises _TwiceError if a name stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


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
    except (OSError, EOFError, zlib.error) as error:
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


def _read_hub(source: Source) -> Rows:
    from datasets import load_dataset

    name, split, config = source.place.removeprefix("hf:"), source.split, source.config
    shown = f"{name!r}, {config!r}" if config else repr(name)
    try:
        return cast(Rows, load_dataset(name, config or None, split=split))
    except Exception as error:
        # Anything may go wrong: no network, no such name or split, a gated or broken dataset.
        which = ""
        if not config and "Config name is missing" in str(error):
            which = "choose one of its configurations with data.config, for example 'main'; "
        raise DataError(
            f"dataset {shown}, split {split!r}, cannot be loaded ({type(error).__name__})",
            cure=f"{which}see why with datasets.load_dataset({shown}, split={split!r}), "
            "or save it to disk and name that",
        ) from None


def bad_row(source: str | Path, number: int, problem: str, cure: str) -> DataError:
    """Return the error for one row. ``problem`` continues the sentence and quotes no value."""
    return DataError(f"prompt source {source}, row {number} {problem}", cure=cure)
