"""Prompts with the columns that their rewards need.

A prompt is private. Errors from here name the source, the row and the cure, and never quote a
value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedgrpo.data.files.opening import bad_row
from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.sources import Source, columns_of, raw_rows
from fedgrpo.ground.chats import Chat, Prompt, with_system
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.mishaps import pass_on_interrupt

RESERVED_COLUMNS = frozenset(
    {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
)
"""Names that a reward function's own arguments have already."""

_IMAGES = ("images", "image")
_NOT_TEXT = {"image", "image_url", "input_image", "audio", "input_audio", "video"}
_TOOLS = {"tool_calls", "tool_call_id", "function_call"}
_TEXT_ONLY = "take it out: models are trained on text alone here"
_NO_TOOLS = "write tools' calls and answers as texts of user and assistant, or take it out"


@dataclass(frozen=True)
class PromptRow:
    """One prompt and what its rewards need to know.

    The representation shows neither, so that a row in a traceback or a log line gives nothing away.
    """

    prompt: Prompt = field(repr=False)
    """Text, or chat messages."""
    columns: Mapping[str, Any] = field(repr=False, default_factory=dict)
    """Every further column, by name."""
    number: int = field(default=0, compare=False)
    """Of the row in its source, from 1; in JSONL that is the line. 0 of what has no source."""

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


def load_prompts(source: str | Source, split: str = "train") -> list[PromptRow]:
    """Read prompts from a file, a saved dataset or the Hugging Face Hub.

    Parameters
    ----------
    source:
        See :class:`fedgrpo.data.sources.Source`; a text is its place. Rows need a ``prompt``:
        text, or messages with ``role`` and ``content``.
    split:
        Of a Hugging Face dataset that is named by its place.

    Raises
    ------
    DataError
        If the source is missing, unreadable or empty, or a row cannot be used. Rows count from 1;
        in JSONL that is the line. No value of any row is named.
    """
    rows, failures = sort_rows(Source(source, split) if isinstance(source, str) else source)
    if failures:
        raise failures[0]
    return rows


def sort_rows(source: Source) -> tuple[list[PromptRow], list[DataError]]:
    """Tell the rows that can be used from those that cannot, and why.

    Raises
    ------
    DataError
        If the source cannot be read at all, or has no row.
    """
    rows: list[PromptRow] = []
    failures: list[DataError] = []
    for number, raw in raw_rows(source):
        try:
            rows.append(source_row(raw, source, number))
        except DataError as error:
            failures.append(error)
    if not rows and not failures:
        place = source.place
        raise DataError(f"prompt source {place} has no rows", cure="give it at least one prompt")
    return rows, failures


def usable_prompts(source: Source, limit: RowLimit | None = None) -> tuple[list[PromptRow], int]:
    """Read the prompts that can be used, and count the rows that cannot, be it for their size.

    For a node after the charge: there one bad row must cost that row alone. ``fedgrpo policy
    check`` and ``fedgrpo run --dry`` name the bad rows in front of the site's own people.

    Raises
    ------
    DataError
        If the source cannot be read at all.
    """
    rows, bad = [], 0
    for number, raw in raw_rows(source, limit.row if limit else None):
        try:
            rows.append(source_row(raw, source, number, limit))
        except BaseException as error:
            pass_on_interrupt(error)
            bad += 1
    return rows, bad


def source_row(
    raw: object, source: Source, number: int, limit: RowLimit | None = None
) -> PromptRow:
    """Check one row of a source, and begin its chat as the source says.

    Raises
    ------
    DataError
        See :func:`as_row`.
    """
    row = as_row(raw, source.place, number, limit)
    if not source.system_prompt:
        return row
    return replace(row, prompt=with_system(row.prompt, source.system_prompt))


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
        problem = "has an empty prompt" if "prompt" in raw else f"has no prompt; {columns_of(raw)}"
        cure = 'name its column, data.columns = {prompt = "..."}, or add one: text or messages'
        raise bad_row(source, number, problem, cure)
    if image := next((name for name in _IMAGES if _is_image(raw.get(name))), None):
        raise bad_row(source, number, f"has images in its column {image!r}", _TEXT_ONLY)
    if clash := sorted(RESERVED_COLUMNS & raw.keys()):
        problem = f"has a column {clash[0]!r}, the name of a reward's own argument"
        raise bad_row(source, number, problem, "rename it")
    prompt = _prompt(raw["prompt"], source, number)
    columns = {name: value for name, value in raw.items() if name != "prompt"}
    return PromptRow(prompt, columns, number)


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
    if message.get("role") == "tool" or message.keys() & _TOOLS:
        raise bad_row(source, number, "has a message of a tool", _NO_TOOLS)
    if isinstance(message.get("content"), list | tuple):
        parts = {part.get("type") for part in message["content"] if isinstance(part, Mapping)}
        if parts & _NOT_TEXT:
            raise bad_row(source, number, "has an image, sound or film in a message", _TEXT_ONLY)
        raise bad_row(source, number, "has a message of several parts", "join their texts to one")
    if message.keys() != {"role", "content"}:
        raise bad_row(source, number, "has a message with other keys than role and content", cure)
    if not all(isinstance(item, str) for item in message.values()) or not message["role"]:
        raise bad_row(source, number, "has a message whose role or content is no text", cure)
    return message


def _is_image(value: object) -> bool:
    """Whether a column's value is more than a text about an image."""
    return value is not None and not isinstance(value, str | bool | int | float)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
