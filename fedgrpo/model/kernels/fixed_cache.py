"""A cache whose buffers stay where they are while a group decodes, and the attention over it.

Where the next token goes is told by a tensor, not by a number of Python's: so a step of decoding is
the same work on the same addresses every time, which a CUDA graph can replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import DynamicLayer


class FixedLayer(DynamicLayer):
    """One layer's keys and values, shape (R, heads, L, size) each.

    Parameters
    ----------
    like:
        A layer of prompts as the model has seen them: heads, size and precision are its own.
    rows, columns:
        R and L.
    slot:
        int64, shape (1,): the column that the next token takes. The layer's owner moves it on.
    """

    def __init__(self, like: DynamicLayer, rows: int, columns: int, slot: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        keys, values = _states(like)
        self.lazy_initialization(keys, values)
        self._slot, self.visible = slot, columns
        self.buffers = [_empty(states, rows, columns) for states in (keys, values)]

    def begin(self, prompts: DynamicLayer, repeats: int) -> None:
        """Take the keys and values of P prompts, ``repeats`` rows each; zeros everywhere else, so
        that nothing of an earlier use, NaN above all, is left behind a mask.
        """
        for buffer, seen in zip(self.buffers, _states(prompts), strict=True):
            count, width = len(seen) * repeats, seen.shape[2]
            buffer[:count, :, width:] = 0
            buffer[count:] = 0
            buffer[:count].unflatten(0, (-1, repeats))[:, :, :, :width] = seen[:, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the next column; returns the first ``visible`` columns."""
        keys, values = self.buffers
        keys.index_copy_(2, self._slot, key_states)
        values.index_copy_(2, self._slot, value_states)
        return keys[:, :, : self.visible], values[:, :, : self.visible]

    def get_seq_length(self, *_: Any) -> int:
        """Nothing is counted from it: positions and masks are given."""
        return 0


@dataclass(frozen=True)
class GroupedQueries:
    """Attention of one new token a row, the query heads of a key head as further queries of one
    product: keys and values are never repeated.

    Attributes
    ----------
    mask:
        Additive, shape (R, 1, 1, C).
    """

    mask: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See :class:`fedgrpo.model.kernels.packed_attention.Selection`."""
        rows, heads, _, size = query.shape
        grouped = query.view(rows, key.shape[1], -1, size)
        if query.dtype == torch.float32 and not query.is_cuda:
            # A quarter faster there than the fused kernel, which in bfloat16 is the faster one.
            weights = torch.matmul(grouped * scale, key.transpose(2, 3)).add_(self.mask)
            return (weights.softmax(-1) @ value).reshape(rows, 1, heads, -1)
        found = scaled_dot_product_attention(grouped, key, value, attn_mask=self.mask, scale=scale)
        return found.reshape(rows, 1, heads, -1)


def _states(layer: DynamicLayer) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _empty(like: Tensor, rows: int, columns: int) -> Tensor:
    return torch.empty(
        (rows, like.shape[1], columns, like.shape[3]), dtype=like.dtype, device=like.device
    )
