"""Attention over rows of one fixed shape, in which no row can reach another.

Rows are filled up with columns that are no tokens, and every index points into the row itself, or
to a column of zeros of its own: a row's result is a function of the row and the shape. What is no
token has keys and values of zero, and scores are selected, not added to: NaN stays in its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedgrpo.model.kernels.packed_attention import attend


@dataclass(frozen=True)
class PlainGrid:
    """Rows that attend as a mask says.

    Attributes
    ----------
    hidden:
        Bool, shape (B, 1, L, C): true where a token does not look. Each looks somewhere.
    real:
        Bool, shape (B, C): where there are tokens; None if all others are zero already.
    """

    hidden: Tensor
    real: Tensor | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See :class:`fedgrpo.model.kernels.packed_attention.Selection`."""
        if self.real is not None:
            key, value = only(key, self.real), only(value, self.real)
        return attend(query, key, value, self.hidden, scale)


@dataclass(frozen=True)
class GroupGrid:
    """Rows ``[prompt, W columns | tokens of all completions, N columns]``, in which each of G
    completions of up to T tokens sees the prompt and itself.

    Attributes
    ----------
    prompt:
        Bool, shape (R, W): where there are tokens.
    take:
        int64, shape (R, G * T): column of the row at which each completion's token stands, W + N
        where there is none: a column of zeros behind the row's own.
    put:
        int64, shape (R, N): the inverse, G * T where there is none.
    prompt_hidden, hidden:
        Bool, shapes (R, 1, W, W) and (R * G, 1, T, W + T): true where a token does not look.
    """

    prompt: Tensor
    take: Tensor
    put: Tensor
    prompt_hidden: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, prompt: Tensor, there: Tensor, span: int) -> GroupGrid:
        """Lay out completions whose tokens are where ``there``, bool (R, G, T), is true, behind
        prompts that stand where ``prompt``, bool (R, W), is.
        """
        rows, group, length = there.shape
        width, cells = prompt.shape[1], there.flatten(1)
        place = cells.cumsum(1) - 1
        take = torch.where(cells, width + place, width + span)
        put = torch.full((rows, span + 1), group * length, device=place.device)
        numbers = torch.arange(group * length, device=place.device).expand(rows, -1)
        put.scatter_(1, torch.where(cells, place, span), numbers)
        seen = prompt[:, None, None].expand(-1, group, length, -1)
        own = ~_causal(there.flatten(0, 1)).view(rows, group, length, length)
        hidden = torch.cat([~seen, own], 3).view(rows * group, 1, length, -1)
        return cls(prompt, take, put[:, :span], prompt_hidden(prompt), hidden)

    def to(self, device: torch.device) -> GroupGrid:
        """The same on a device."""
        parts = (self.prompt, self.take, self.put, self.prompt_hidden, self.hidden)
        return GroupGrid(*(part.to(device) for part in parts))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See :class:`fedgrpo.model.kernels.packed_attention.Selection`."""
        width = self.prompt.shape[1]
        prompt_k, prompt_v = (only(states[:, :, :width], self.prompt) for states in (key, value))
        above = attend(query[:, :, :width], prompt_k, prompt_v, self.prompt_hidden, scale)
        below = attend(
            self._each(query),
            torch.cat([self._shared(prompt_k), self._each(key)], 2),
            torch.cat([self._shared(prompt_v), self._each(value)], 2),
            self.hidden,
            scale,
        )
        cells = below.reshape(len(query), -1, *below.shape[2:])
        return torch.cat([above, picked(cells, self.put, 1)], 1)

    def _each(self, states: Tensor) -> Tensor:
        """(R, heads, W + N, size) to (R * G, heads, T, size)."""
        length = self.hidden.shape[2]
        cells = picked(states, self.take, 2)
        each: Tensor = cells.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)
        return each

    def _shared(self, states: Tensor) -> Tensor:
        """(R, heads, W, size) to (R * G, heads, W, size)."""
        group = len(self.hidden) // len(states)
        return states[:, None].expand(-1, group, -1, -1, -1).flatten(0, 1)


def picked(states: Tensor, index: Tensor, dim: int) -> Tensor:
    """Columns of each row's own: states (R, ..., C, ...) with C at ``dim``, index (R, K), in which
    C names zeros; returns (R, ..., K, ...).
    """
    shape = [*states.shape]
    shape[dim] = 1
    padded = torch.cat([states, states.new_zeros(shape)], dim)
    view = [len(index)] + [1] * (states.dim() - 1)
    view[dim] = index.shape[1]
    shape[dim] = index.shape[1]
    return padded.gather(dim, index.view(view).expand(shape))


def only(states: Tensor, real: Tensor) -> Tensor:
    """Zeros where there is no token: states (B, heads, C, size), real bool (B, C)."""
    return torch.where(real[:, None, :, None], states, 0.0)


def prompt_hidden(real: Tensor) -> Tensor:
    """Mask of prompts that stand where ``real``, bool (R, W), is true; bool (R, 1, W, W)."""
    return ~_causal(real)[:, None]


def _causal(real: Tensor) -> Tensor:
    """Who may look at whom, bool (B, L) to (B, L, L). What is no token looks at itself alone."""
    size = real.shape[1]
    triangle = torch.ones(size, size, dtype=torch.bool, device=real.device).tril_()
    itself = torch.eye(size, dtype=torch.bool, device=real.device)
    return (triangle & real[:, None, :] & real[:, :, None]) | itself
