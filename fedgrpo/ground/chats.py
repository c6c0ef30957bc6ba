"""Prompts as they are before any model reads them: text, or messages of a chat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Chat = list[dict[str, str]]
"""Messages ``{"role": ..., "content": ...}`` as chat templates and TRL's rewards take them."""

Prompt = str | tuple[Mapping[str, str], ...]
"""Text, or messages held as a tuple so that a row cannot change."""


def plain_text(prompt: Prompt) -> str:
    """Write a prompt in one way: text as it is, messages as JSON with sorted keys."""
    return prompt if isinstance(prompt, str) else canonical([dict(m) for m in prompt])


def with_system(prompt: Prompt, text: str) -> Prompt:
    """Begin a chat with a system message, unless it has one; a text becomes a user's message."""
    chat = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    if chat and chat[0]["role"] == "system":
        return chat
    return ({"role": "system", "content": text}, *chat)


def canonical(value: Any) -> str:
    """Write a value in one way only, whatever types a data file may hold.

    Keys are sorted as text: data files may mix types of keys, which cannot be compared.
    """
    return json.dumps(_plain(value), sort_keys=True, default=repr)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
