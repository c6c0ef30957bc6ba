"""Prompts as token ids, where one that cannot be encoded must not cost the others anything.

Chat template and tokenizer are programs over every prompt, of a model that the server names: at a
site, a prompt that they take too long over costs its own row alone, see
:mod:`fedgrpo.grpo.isolated.apart`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedgrpo.data.files.row_limits import RowLimit, size
from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.chats import Prompt, canonical, plain_text
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.grpo.isolated.apart import Limits, answers_apart, can_fork
from fedgrpo.model.base import BaseModel
from fedgrpo.model.encoding import encode_prompt, unit_text

_ID_BYTES = 8
_LONGEST_TEXT = 2**20
"""Bytes of a text that a child hands over; of a longer one its digest says as much."""


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model reads it.

    Attributes
    ----------
    ids:
        None if it has none, too many, such as the model does not have, or cannot be encoded.
    text:
        Prompts with the same are one unit: see :func:`fedgrpo.model.encoding.unit_text`.
    late:
        Whether it took too long: it has no ids then, and is told from others by its messages.
    """

    ids: tuple[int, ...] | None
    text: str
    late: bool = False


@dataclass(frozen=True)
class Encodings:
    """Prompts of a site, encoded."""

    found: Mapping[str, Encoded]

    def of(self, prompt: Prompt) -> Encoded:
        """One of them."""
        return self.found[_name(prompt)]

    def text(self, prompt: Prompt) -> str:
        """What makes one of them the same as another."""
        return self.of(prompt).text


def encodings(
    base: BaseModel, rows: Sequence[PromptRow], limit: int, limits: Limits | None = None
) -> Encodings:
    """Encode each different prompt once, with at most ``limit`` tokens.

    Parameters
    ----------
    limits:
        Of time: it is spent in a process apart, and in an order of the prompts' content, so that
        the order of rows decides nothing where it ends. None, and machines on which there can be
        no such process, have no limits.
    """
    known = _known(base)

    def encode(prompt: Prompt) -> Encoded:
        return Encoded(
            _usable(base, prompt, limit, known), unit_text(base.tokenizer, prompt, base.chat)
        )

    named = {_name(row.prompt): row.prompt for row in rows}
    names = sorted(named)
    prompts = [named[name] for name in names]
    answers = None
    if limits and prompts and can_fork():
        # What is made ready at first use is ready in every child.
        for ready in ("0", ({"role": "user", "content": "0"},)):
            encode(ready)
        answers = answers_apart(lambda i: _written(encode(prompts[i])), len(prompts), limits)
    if answers is None:
        return Encodings(dict(zip(names, map(encode, prompts), strict=True)))
    return Encodings(dict(zip(names, map(_read, answers, prompts), strict=True)))


def usable_ids(
    base: BaseModel, rows: Sequence[PromptRow], limit: int
) -> list[tuple[int, ...] | None]:
    """Token ids of each prompt; None if it has none, more than ``limit``, or ids that the model
    does not have, or so many characters that it is not even tried, or cannot be encoded at all.
    """
    known = _known(base)
    return [_usable(base, row.prompt, limit, known) for row in rows]


def _known(base: BaseModel) -> int:
    return len(next(base.model.get_input_embeddings().parameters()))


def _usable(base: BaseModel, prompt: Prompt, limit: int, known: int) -> tuple[int, ...] | None:
    try:
        if size(prompt) > RowLimit(limit).prompt:
            return None
        ids = tuple(encode_prompt(base.tokenizer, prompt, base.chat))
    except BaseException as error:
        # Tokenizers and templates raise what they like, and may quote what they choke on.
        pass_on_interrupt(error)
        return None
    return ids if 0 < len(ids) <= limit and min(ids) >= 0 and max(ids) < known else None


def _name(prompt: Prompt) -> str:
    kind = "text" if isinstance(prompt, str) else "chat"
    return _digest(canonical([kind, plain_text(prompt)]).encode())


def _digest(written: bytes) -> str:
    return hashlib.sha256(written).hexdigest()


def _written(encoded: Encoded) -> bytes:
    """The number of ids, negative where there are none, ids, and the text."""
    ids, text = encoded.ids, encoded.text.encode(errors="surrogatepass")
    if len(text) > _LONGEST_TEXT:
        text = _digest(text).encode()
    numbers = np.array([-1 if ids is None else len(ids), *(ids or ())], "<i8")
    return numbers.tobytes() + text


def _read(answer: bytes | None, prompt: Prompt) -> Encoded:
    if answer is None:
        return Encoded(None, plain_text(prompt), late=True)
    count = int(np.frombuffer(answer, "<i8", 1)[0])
    ids = np.frombuffer(answer, "<i8", max(count, 0), _ID_BYTES).tolist()
    text = answer[_ID_BYTES * (1 + len(ids)) :].decode(errors="surrogatepass")
    return Encoded(None if count < 0 else tuple(ids), text)
