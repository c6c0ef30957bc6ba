"""Text of a chat that spells a control token, kept from becoming one.

A tokenizer finds its added tokens wherever they are spelt. Between messages the template means
them; within a user's message they are an injection, or an accident of text about chat templates.
Transformers' ``split_special_tokens`` knows no such difference, and only tokens that are called
special.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from fedgrpo.ground.chats import Chat

_OPENS, _CLOSES = "<[{|", ">]}|"
_FIRST, _LAST = "\ue0f0", "\ue0f1"
"""Private characters around the number of a covered marker."""

Hidden = tuple[str, ...]


def markers_of(tokenizer: PreTrainedTokenizerBase) -> Hidden:
    """Added tokens that steer, longest first: those that are called special, and those that look
    like ``</think>``. Runs of blanks and whole words are added tokens too, and are text.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {token.content for token in added if _steers(token.content, special=token.special)}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _steers(text: str, *, special: bool) -> bool:
    return len(text.strip()) > 1 and (special or (text[0] in _OPENS and text[-1] in _CLOSES))


def covered(chat: Chat, markers: Hidden) -> tuple[Chat, Hidden]:
    """Replace markers in messages of anybody but the assistant by placeholders.

    The assistant's own earlier turns may hold them by right, such as its reasoning's.

    Returns
    -------
    Chat, tuple[str, ...]
        The chat, and what stands behind each placeholder; nothing if there is none.
    """
    texts = [message["content"] for message in chat if message["role"] != "assistant"]
    if not any(marker in text for text in texts for marker in markers):
        return chat, ()
    hidden: list[str] = []

    def cover(found: re.Match[str]) -> str:
        hidden.append(found[0])
        return f"{_FIRST}{len(hidden) - 1}{_LAST}"

    # A text may hold the placeholder's own characters: they are covered like a marker.
    pattern = re.compile("|".join(map(re.escape, (*markers, _FIRST, _LAST))))
    done = [
        message
        if message["role"] == "assistant"
        else {**message, "content": pattern.sub(cover, message["content"])}
        for message in chat
    ]
    return done, tuple(hidden)


def uncovered(text: str, hidden: Hidden) -> list[tuple[str, bool]]:
    """Cut a rendered chat into text and what stood behind placeholders (True)."""
    parts = re.split(f"{_FIRST}([0-9]+){_LAST}", text)
    return [
        (hidden[int(part)], True) if place % 2 else (part, False)
        for place, part in enumerate(parts)
    ]


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text in which no added token is found: it is cut until none is left."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(text) < 2 or not _has_added(tokenizer, ids, text):
        return ids
    half = 1 if len(text) < 4 else len(text) // 2
    return plain_ids(tokenizer, text[:half]) + plain_ids(tokenizer, text[half:])


def _has_added(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> bool:
    added = tokenizer.added_tokens_decoder
    return any(i in added and added[i].content in text for i in ids)
