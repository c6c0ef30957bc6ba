"""Which attention masks a model understands, and a cache that does not move when it grows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

PACKED = "packed"
"""Name of the attention that models which take any mask are given (see packed_attention.py)."""


def takes_any_mask(model: PreTrainedModel) -> bool:
    """Tell whether every layer attends wherever a 4-D mask lets it, and nowhere else: see
    :func:`fedgrpo.model.kernels.packed_attention.use_packed_attention`.

    Sliding windows, linear attention and recurrence look at less than such a mask shows, ALiBi
    needs the 2-D form, and sinks and capped scores a product of their own: those models get plain
    rows and plain masks.
    """
    return bool(model.config._attn_implementation == PACKED)


def attends_everywhere(model: PreTrainedModel, longest: int) -> bool:
    """Tell whether each layer keeps all keys and values of rows of up to ``longest`` tokens.

    A window that is wider than every row hides nothing. With 0 the rows' length is not known.
    """
    layers = DynamicCache(config=model.config).layers
    return all(_keeps_all(layer, longest) for layer in layers)


def _keeps_all(layer: Any, longest: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return 0 < longest <= layer.sliding_window
    return type(layer) in (DynamicLayer, DummyLayer)


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room for every token to come.

    ``DynamicLayer`` concatenates, which moves the whole cache with each token.

    Parameters
    ----------
    prefilled:
        Keys and values of B prompts, shape (B, heads, S, size).
    repeats:
        Rows made of each prompt, G; row ``b * G + g`` belongs to prompt b.
    room:
        Tokens that may follow.
    """

    def __init__(self, prefilled: DynamicLayer, repeats: int, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        assert prefilled.keys is not None
        assert prefilled.values is not None
        self.lazy_initialization(prefilled.keys, prefilled.values)
        self._buffers = [
            _repeat_with_room(seen, repeats, room) for seen in (prefilled.keys, prefilled.values)
        ]
        self._show(prefilled.get_seq_length())

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write behind what is there; returns views of all keys and all values."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._show(end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these rows: transformers' word for it."""
        self._buffers = [buffer[beam_idx] for buffer in self._buffers]
        self._show(self.get_seq_length())

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def new_cache(model: PreTrainedModel) -> Cache:
    """An empty cache. Where the model takes any mask, that alone says what is looked at, and
    nothing is forgotten.
    """
    cache = DynamicCache(config=model.config)
    if takes_any_mask(model):
        cache.layers = [
            layer if type(layer) is DummyLayer else DynamicLayer() for layer in cache.layers
        ]
    return cache


def repeat_cache(cache: Cache, prompts: int, repeats: int, room: int) -> Cache:
    """Give the cache of each of so many prompts to ``repeats`` rows, with room for ``room`` further
    tokens.

    Layers that do not simply grow (sliding windows, recurrent states) are repeated as they are.
    """
    rows = torch.arange(prompts).repeat_interleave(repeats)
    layers: list[Any] = list(cache.layers)
    for number, layer in enumerate(layers):
        if type(layer) is DynamicLayer:
            layers[number] = RoomyLayer(layer, repeats, room)
        else:
            layer.reorder_cache(rows)
    return Cache(layers=layers)


def _repeat_with_room(seen: Tensor, repeats: int, room: int) -> Tensor:
    batch, heads, length, size = seen.shape
    buffer = seen.new_empty(batch, repeats, heads, length + room, size)
    buffer[:, :, :, :length] = seen[:, None]
    return buffer.flatten(0, 1)


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to scores: 0 where a token may look, else the least number, bool to ``dtype``."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)


def choose_rows(cache: Cache, rows: Tensor) -> None:
    """Go on with these rows of a cache, int64, shape (n,), as often as they are named."""
    # Of transformers' ways to choose rows the only one that recurrent states have, too.
    cache.reorder_cache(rows)  # type: ignore[arg-type]
