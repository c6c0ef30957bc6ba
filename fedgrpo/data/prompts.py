"""Prompts with the columns that their rewards need.

A prompt is private. Errors from here name the source, the row and the cure, and never quote a
value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedgrpo.data.row_limits import RowLimit
from fedgrpo.data.sources import bad_row, raw_rows
from fedgrpo.ground.chats import Chat, Prompt
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.mishaps import pass_on_interrupt

RESERVED_COLUMNS = frozenset({"prompts", "completions", "completion_ids"})
"""Names that a reward function's own arguments have already."""


@dataclass(frozen=True)
class PromptRow:
    """One prompt and what its rewards need to know.

    The representation shows neither, so that a row in a traceback or a log line gives nothing away.
    """

    prompt: Prompt = field(repr=False)
    """Text, or chat messages."""
    columns: Mapping[str, Any] = field(repr=False, default_factory=dict)
    """Every further column, by name."""

    def for_model(self) -> str | Chat:
        """Return what chat templates and rewards take: text, or a fresh list of messages."""
        if isinstance(self.prompt, str):
            return self.prompt
        return [dict(message) for message in self.prompt]


def collate_columns(rows: Sequence[PromptRow]) -> dict[str, list[Any]]:
    """Turn rows into columns, the form in which rewards take them.

    Returns
    -------
    dict
        For each column that any row has, one value a row: ``None`` where a row lacks it, as
        ``datasets`` does.
    """
    names = dict.fromkeys(name for row in rows for name in row.columns)
    return {name: [row.columns.get(name) for row in rows] for name in names}


def load_prompts(source: str, split: str = "train") -> list[PromptRow]:
    """Read prompts from a file, a saved dataset or the Hugging Face Hub.

    Parameters
    ----------
    source:
        A ``.jsonl`` or ``.parquet`` file, a directory made by ``datasets.save_to_disk``, or
        ``hf:NAME``. Rows need a ``prompt``: text, or messages with ``role`` and ``content``.
    split:
        Split of a Hugging Face dataset; files have none.

    Raises
    ------
    DataError
        If the source is missing, unreadable or empty, or a row cannot be used. Rows count from 1;
        in JSONL that is the line. No value of any row is named.
    """
    rows = [as_row(raw, source, number) for number, raw in raw_rows(source, split)]
    if not rows:
        raise DataError(f"prompt source {source} has no rows", cure="give it at least one prompt")
    return rows


def usable_prompts(
    source: str, split: str = "train", limit: RowLimit | None = None
) -> tuple[list[PromptRow], int]:
    """Read the prompts that can be used, and count the rows that cannot, be it for their size.

    For a node after the charge: there one bad row must cost that row alone. ``fedgrpo policy
    check`` and ``fedgrpo run --dry`` name the bad rows in front of the site's own people.

    Raises
    ------
    DataError
        If the source cannot be read at all.
    """
    rows, bad = [], 0
    for number, raw in raw_rows(source, split, limit.row if limit else None):
        try:
            rows.append(as_row(raw, source, number, limit))
        except BaseException as error:
            pass_on_interrupt(error)
            bad += 1
    return rows, bad


def as_row(raw: object, source: str, number: int, limit: RowLimit | None = None) -> PromptRow:
    """Check one row and split its prompt from its columns.

    Raises
    ------
    DataError
        Naming ``source`` and ``number``, if the row cannot be used.
    """
    if isinstance(raw, DataError):
        raise raw
    if not isinstance(raw, Mapping):
        raise bad_row(source, number, "is not an object", "write one JSON object on each line")
    if limit:
        _check_size(raw, source, number, limit)
    if raw.get("prompt") is None:
        raise bad_row(source, number, "has no prompt", "add a 'prompt' column: text or messages")
    if clash := sorted(RESERVED_COLUMNS & raw.keys()):
        problem = f"has a column {clash[0]!r}, the name of a reward's own argument"
        raise bad_row(source, number, problem, "rename it")
    prompt = _prompt(raw["prompt"], source, number)
    return PromptRow(prompt, {name: value for name, value in raw.items() if name != "prompt"})


def _check_size(raw: Mapping[Any, Any], source: str, number: int, limit: RowLimit) -> None:
    try:
        limit.check(raw)
    except DataError as error:
        raise bad_row(source, number, error.problem, "shorten it or take it out") from None


def _prompt(value: object, source: str, number: int) -> Prompt:
    if isinstance(value, str):
        prompt: Prompt = value
        texts = [value]
    elif isinstance(value, list | tuple):
        prompt = tuple(_message(message, source, number) for message in value)
        texts = [message["content"] for message in prompt]
    else:
        problem = f"has a prompt of type {type(value).__name__}"
        raise bad_row(source, number, problem, "write text or a list of messages")
    if not any(text.strip() for text in texts):
        raise bad_row(source, number, "has an empty prompt", "fill it in or remove the row")
    if any(not _is_unicode(text) for text in texts):
        raise bad_row(
            source, number, "has half a surrogate pair", "repair its \\uD800-\\uDFFF escapes"
        )
    return prompt


def _message(value: object, source: str, number: int) -> Mapping[str, str]:
    cure = 'write each message as {"role": "user", "content": "..."}'
    if not isinstance(value, Mapping):
        raise bad_row(source, number, f"has a message of type {type(value).__name__}", cure)
    # Arrow writes a key that only other rows have as None.
    message = {key: item for key, item in value.items() if item is not None}
    if message.keys() != {"role", "content"}:
        raise bad_row(source, number, "has a message with other keys than role and content", cure)
    if not all(isinstance(item, str) for item in message.values()) or not message["role"]:
        raise bad_row(source, number, "has a message whose role or content is no text", cure)
    return message


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
