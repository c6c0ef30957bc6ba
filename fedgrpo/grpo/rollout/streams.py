"""Rows on their way through the model behind one context: prompts are seen once, and each group's
rows share what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedgrpo.model.family.passes import arguments
from fedgrpo.model.kernels.attention import (
    PACKED,
    choose_rows,
    new_cache,
    repeat_cache,
    takes_any_mask,
)
from fedgrpo.model.kernels.fixed_cache import FixedLayer, GroupedQueries

COLUMNS = 64
"""Columns of a GPU's buffers are a multiple of this, so that few lengths are ever captured."""


class Prefilled:
    """P prompts as the model has seen them.

    Attributes
    ----------
    logits:
        Of the next token, shape (P, V).
    real, position:
        int64: 1 where there is a token (P, S), and the last one's position (P, 1).
    ids:
        int64, (P, S): the tokens, a filler where there is none.
    cache:
        Keys and values, or whatever else the model keeps.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int
    ) -> None:
        ids, self.real = _left_pad(prompts, pad_id, model.device)
        positions = (self.real.cumsum(1) - 1).clamp(min=0)
        self.cache = new_cache(model)
        self.ids = ids
        given = arguments(model, ids, self.real, positions, self.cache)
        self.logits: Tensor = model(**given, logits_to_keep=1).logits[:, -1]
        self.position = positions[:, -1:]

    @property
    def width(self) -> int:
        """Columns of the prompts, S."""
        return self.real.shape[1]


class Stream(Protocol):
    """Rows behind one context, ``group`` of them for each of its prompts."""

    def begin(self, seen: Prefilled, group: int) -> None:
        """Take the rows of these prompts, in the place of all there were."""

    def state(self) -> list[Tensor]:
        """Buffers that decide what the next token is given, but for keys and values."""

    def advance(self, tokens: Tensor) -> Tensor:
        """Take every row's next token, shape (R, 1); returns logits of the one after, (R, V)."""

    def take(self, other: Any, rows: Tensor) -> None:
        """Go on with these rows of another stream of the same kind, which may be this one."""


class FixedStream:
    """A stream over buffers of fixed size, R rows and L columns: for models that attend wherever a
    mask lets them.

    Parameters
    ----------
    model:
        Takes any mask.
    seen:
        Prompts, for the shapes.
    rows, columns:
        R and L.
    """

    def __init__(self, model: PreTrainedModel, seen: Prefilled, rows: int, columns: int) -> None:
        self._model, device = model, model.device
        self._slot = torch.zeros(1, dtype=torch.long, device=device)
        layers: list[Any] = list(seen.cache.layers)
        self._layers = [FixedLayer(layer, rows, columns, self._slot) for layer in layers]
        self._cache = Cache(layers=list(self._layers))
        self._mask = torch.empty(rows, 1, 1, columns, dtype=model.dtype, device=device)
        self._position = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._columns = columns

    def begin(self, seen: Prefilled, group: int) -> None:
        """See :class:`Stream`. Rows that are left over look at one column of zeros."""
        count, width = len(seen.real) * group, seen.width
        layers: list[Any] = list(seen.cache.layers)
        for mine, theirs in zip(self._layers, layers, strict=True):
            mine.begin(theirs, group)
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        hidden = seen.real.repeat_interleave(group, 0)[:, None, None] == 0
        self._mask[:count, ..., :width] = self._mask[:count, ..., :width] * hidden
        self._mask[count:, ..., 0] = 0
        self._position.zero_()
        self._position[:count] = seen.position.repeat_interleave(group, 0)
        self._slot.fill_(width)
        self._show(width)

    def state(self) -> list[Tensor]:
        """See :class:`Stream`."""
        return [self._slot, self._mask, self._position]

    def advance(self, tokens: Tensor) -> Tensor:
        """See :class:`Stream`."""
        self._show(self._shown + 1)
        self._position.add_(1)
        self._mask.index_fill_(3, self._slot, 0.0)
        mask = self._mask[..., : self._visible]
        more = {"packing": GroupedQueries(mask)} if _is_packed(self._model) else {}
        given = arguments(self._model, tokens, mask, self._position, self._cache)
        logits: Tensor = self._model(**given, **more).logits[:, -1]
        self._slot.add_(1)
        return logits

    def take(self, other: FixedStream, rows: Tensor) -> None:
        """See :class:`Stream`."""
        count = len(rows)
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            pairs = zip(mine.buffers, theirs.buffers, strict=True)
            mine.buffers = [_chosen(into, source, rows) for into, source in pairs]
            for buffer in mine.buffers:
                buffer[count:] = 0  # What was there is nobody's, and may be NaN.
        self._mask = _chosen(self._mask, other._mask, rows)
        self._position = _chosen(self._position, other._position, rows)
        self._mask[count:] = torch.finfo(self._mask.dtype).min
        self._mask[count:, ..., 0] = 0
        if other is not self:
            self._slot.copy_(other._slot)
        self._show(other._shown)

    @property
    def _visible(self) -> int:
        """Columns that are looked at: on a GPU all, so that every step is the same."""
        return self._columns if self._slot.is_cuda else self._shown

    def _show(self, columns: int) -> None:
        """So many have been written."""
        self._shown = columns
        for layer in self._layers:
            layer.visible = self._visible


class GrowingStream:
    """A stream over whatever cache a model has: windows, recurrent states, other attention."""

    def __init__(self, model: PreTrainedModel, room: int) -> None:
        self._model, self._room = model, room
        # Until it begins there are no rows, but a device.
        self._mask = self._position = torch.empty(0, 1, dtype=torch.long, device=model.device)

    def begin(self, seen: Prefilled, group: int) -> None:
        """See :class:`Stream`."""
        self._cache = repeat_cache(seen.cache, len(seen.real), group, self._room)
        ahead = seen.real.new_ones(len(seen.real), self._room)
        self._mask = torch.cat([seen.real, ahead], 1).repeat_interleave(group, 0)
        self._position = seen.position.repeat_interleave(group, 0)
        self._shown = seen.width

    def state(self) -> list[Tensor]:
        """See :class:`Stream`."""
        return [self._mask, self._position]

    def advance(self, tokens: Tensor) -> Tensor:
        """See :class:`Stream`."""
        self._shown, self._position = self._shown + 1, self._position + 1
        mask = self._mask[:, : self._shown]
        given = arguments(self._model, tokens, mask, self._position, self._cache)
        logits: Tensor = self._model(**given).logits[:, -1]
        return logits

    def take(self, other: GrowingStream, rows: Tensor) -> None:
        """See :class:`Stream`: of itself only."""
        assert other is self
        choose_rows(self._cache, rows)
        self._mask, self._position = self._mask[rows], self._position[rows]


def stream_over(
    model: PreTrainedModel, seen: Prefilled, rows: int, columns: int, room: int
) -> FixedStream | GrowingStream:
    """The stream that a model can be decoded with."""
    if is_fixed(model, seen):
        return FixedStream(model, seen, rows, columns)
    return GrowingStream(model, room)


def is_fixed(model: PreTrainedModel, seen: Prefilled) -> bool:
    """Whether buffers of fixed size can stand for what a model keeps."""
    return takes_any_mask(model) and all(type(x) is DynamicLayer for x in seen.cache.layers)


def _is_packed(model: PreTrainedModel) -> bool:
    return bool(model.config._attn_implementation == PACKED)


def _chosen(into: Tensor, source: Tensor, rows: Tensor) -> Tensor:
    """Rows of another buffer, at the front of this one; or a buffer of these rows alone, if it is
    the same one.
    """
    chosen = source.index_select(0, rows)
    if into is source:
        return chosen
    into[: len(rows)] = chosen
    return into


def _left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    attention = torch.zeros(len(prompts), width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        attention[i, width - len(prompt) :] = 1
    return ids.to(device), attention.to(device)
