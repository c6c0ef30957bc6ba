"""A small table as one text, because Flower's run configuration carries no tables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from fedgrpo.ground.parts import split_names

_CURE = 'write a=b, c=d, or a table {a = "b", c = "d"}'


def to_text(value: object) -> object:
    """Write a table in the one form that settings keep: JSON with sorted keys; empty for none.

    Parameters
    ----------
    value:
        A mapping, ``"a=b, c=d"`` or JSON. Values are texts, numbers, booleans, lists and tables.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(value, str):
        value = _from_text(value.strip())
    if not isinstance(value, Mapping):
        return value
    try:
        return json.dumps(dict(value), sort_keys=True, allow_nan=False) if value else ""
    except (TypeError, ValueError):
        raise ValueError(f"values must be texts, numbers or booleans: {_CURE}") from None


def read_table(text: str) -> dict[str, Any]:
    """Read what :func:`to_text` wrote."""
    return dict(json.loads(text)) if text else {}


def _from_text(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        return _from_json(text)
    pairs = [item.partition("=") for item in split_names(text)]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError(f"is no table: {_CURE}")
    return {name.strip(): _value(value.strip()) for name, _, value in pairs}


def _from_json(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, RecursionError):
        raise ValueError(f"is no table: {_CURE}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_texts(value: object) -> object:
    """Write texts in the one form that settings keep: a JSON list; empty for none.

    Parameters
    ----------
    value:
        A list, a JSON list, or one text as it is. Spaces, commas and line ends count.

    Raises
    ------
    ValueError
        If an item is no text, or an empty one.
    """
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list | tuple):
        return value
    if not all(isinstance(item, str) and item for item in value):
        raise ValueError('takes texts that are not empty: write a list ["...", "..."]')
    return json.dumps(list(value)) if value else ""


def read_texts(text: str) -> tuple[str, ...]:
    """Read what :func:`to_texts` wrote."""
    return tuple(json.loads(text)) if text else ()


def _listed(text: str) -> object:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, list) else [text] if text else []


Table = Annotated[str, BeforeValidator(to_text)]
"""A table that travels as text. Empty is an empty one."""

Texts = Annotated[str, BeforeValidator(to_texts)]
"""Texts with any characters, as one that travels. Empty is none."""
