"""Read raw rows from JSONL, JSON, CSV, parquet and Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from fedgrpo.data.files.json_rows import read_json, read_jsonl
from fedgrpo.data.files.opening import bad_row, one
from fedgrpo.data.files.tables import read_csv, read_parquet
from fedgrpo.ground.errors import DataError
from fedgrpo.settings import DataSettings

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
        raise DataError(
            f"prompt source {source.place} does not exist",
            cure="check the path; a dataset of the Hub is named hf:OWNER/NAME",
        )
    if path.is_dir():
        return enumerate(_read_saved(path, source.split), start=1)
    if not path.is_file():
        raise DataError(
            f"prompt source {source.place} is no file but a pipe or a device, which is read once",
            cure="write the prompts into a file: they are read more than once",
        )
    kind = path.name.lower().removesuffix(".gz")
    if most_bytes is not None and kind.endswith((".json", ".csv", ".tsv")):
        raise DataError(
            f"prompt source {source.place} is read as a whole, and a node reads row by row, so "
            "that one bad row cannot cost the others",
            cure="write it as .jsonl, for example with datasets.load_dataset"
            f"({kind.rpartition('.')[2].replace('tsv', 'csv')!r}, data_files=...)['train']"
            ".to_json('prompts.jsonl')",
        )
    if kind.endswith(".parquet"):
        return enumerate(read_parquet(path), start=1)
    for ending, read in _TEXTS.items():
        if kind.endswith(ending):
            return read(path, most_bytes)
    raise DataError(
        f"prompt source {source.place} is of an unknown kind",
        cure="give a .jsonl, .json, .csv, .tsv or .parquet file (all but the last also with .gz), "
        "a directory made by datasets.save_to_disk, or hf:NAME",
    )


_TEXTS = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
}
"""Readers of files of text, by the ending of their names."""


def _each(dataset: Any, place: str) -> Iterator[object]:
    """Rows of a dataset; one whose values its library cannot make says nothing of the others."""
    return (one(partial(dataset.__getitem__, i), place, i + 1) for i in range(len(dataset)))


def _read_saved(path: Path, split: str) -> Iterable[object]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except Exception as error:
        raise DataError(
            f"prompt source {path} is not a saved dataset ({type(error).__name__})",
            cure=_instead(path),
        ) from None
    if not isinstance(loaded, DatasetDict):
        return _each(loaded, str(path))
    if split not in loaded:
        raise DataError(
            f"prompt source {path} has no split {split!r}",
            cure=f"choose one of {', '.join(loaded)}",
        )
    return _each(loaded[split], str(path))


def _instead(path: Path) -> str:
    """What to name in the place of a directory that is no dataset."""
    files = sorted(file.name for file in path.iterdir() if file.is_file())
    readable = [name for name in files if name.lower().endswith((".parquet", *_TEXTS))]
    which = f"name one of its files, for example {readable[0]}; or " if readable else ""
    return f"{which}give a directory made by datasets.save_to_disk"


def _read_hub(source: Source) -> Iterable[object]:
    from datasets import load_dataset

    name, split, config = source.place.removeprefix("hf:"), source.split, source.config
    shown = f"{name!r}, {config!r}" if config else repr(name)
    try:
        loaded = load_dataset(name, config or None, split=split)
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
    return _each(loaded, source.place)
