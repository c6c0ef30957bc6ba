"""Prompts as token ids, where one that cannot be encoded must not cost the others anything."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.row_limits import RowLimit, size
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.model.base import BaseModel
from fedgrpo.model.encoding import encode_prompt


def usable_ids(
    base: BaseModel, rows: Sequence[PromptRow], limit: int
) -> list[tuple[int, ...] | None]:
    """Token ids of each prompt; None if it has none, more than ``limit``, or ids that the model
    does not have, or so many characters that it is not even tried, or cannot be encoded at all.
    """
    known = len(next(base.model.get_input_embeddings().parameters()))
    return [_usable(base, row, limit, known) for row in rows]


def _usable(base: BaseModel, row: PromptRow, limit: int, known: int) -> tuple[int, ...] | None:
    try:
        if size(row.prompt) > RowLimit(limit).prompt:
            return None
        ids = tuple(encode_prompt(base.tokenizer, row.prompt))
    except BaseException as error:
        # Tokenizers and templates raise what they like, and may quote what they choke on.
        pass_on_interrupt(error)
        return None
    return ids if 0 < len(ids) <= limit and min(ids) >= 0 and max(ids) < known else None
