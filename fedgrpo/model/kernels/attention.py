"""Which attention masks a model understands, and a cache that does not move when it grows."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

PACKED = "packed"
"""Name of the attention that models which take any mask are given (see packed_attention.py)."""


def takes_any_mask(model: PreTrainedModel) -> bool:
    """Tell whether every layer attends wherever a 4-D mask lets it, and nowhere else.

    Sliding windows, linear attention and recurrence look at less than such a mask shows, and ALiBi
    needs the 2-D form: those models get plain rows and plain masks.
    """
    config = model.config
    if config._attn_implementation == PACKED:
        return True
    layers = DynamicCache(config=config).layers
    # Nothing public says which function attends; transformers' own code reads the same name.
    plain = config._attn_implementation in ("sdpa", "eager")
    return (
        plain
        and all(type(layer) is DynamicLayer for layer in layers)
        and not getattr(config, "alibi", False)
    )


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

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._show(self.get_seq_length())

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def repeat_cache(cache: Cache, repeats: int, room: int) -> Cache:
    """Give each prompt's cache to ``repeats`` rows, with room for ``room`` further tokens.

    Layers that do not simply grow (sliding windows, recurrent states) are repeated as they are.
    """
    growing = [layer for layer in cache.layers if type(layer) is DynamicLayer]
    if len(growing) == len(cache.layers):
        return Cache(layers=[RoomyLayer(layer, repeats, room) for layer in growing])
    cache.batch_repeat_interleave(repeats)
    return cache


def _repeat_with_room(seen: Tensor, repeats: int, room: int) -> Tensor:
    batch, heads, length, size = seen.shape
    buffer = seen.new_empty(batch, repeats, heads, length + room, size)
    buffer[:, :, :, :length] = seen[:, None]
    return buffer.flatten(0, 1)
