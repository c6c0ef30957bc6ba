"""Attention over rows of one fixed shape, in which no row can reach another.

A row is ``[prompt, W columns | completion 1, T columns | ... | completion G, T columns]``, prompts
filled up on the left and completions on the right. Every index follows from W, G and T, so there is
nothing to gather from anywhere else: a row's result is a function of the row and the shape. What is
no token has keys and values of zero, and scores are selected, not added to: NaN stays in its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedgrpo.model.packed_attention import attend


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
        """See :class:`fedgrpo.model.packed_attention.Selection`."""
        if self.real is not None:
            key, value = only(key, self.real), only(value, self.real)
        return attend(query, key, value, self.hidden, scale)


@dataclass(frozen=True)
class GroupGrid:
    """Rows of a prompt and its G completions, each of which sees the prompt and itself.

    Attributes
    ----------
    prompt, completions:
        Bool, shapes (R, W) and (R, G, T): where there are tokens.
    prompt_hidden, hidden:
        Bool, shapes (R, 1, W, W) and (R * G, 1, T, W + T): true where a token does not look.
    """

    prompt: Tensor
    completions: Tensor
    prompt_hidden: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, prompt: Tensor, completions: Tensor) -> GroupGrid:
        """Masks for tokens that stand where these are true."""
        rows, group, length = completions.shape
        above = prompt_hidden(prompt)
        seen = prompt[:, None, None].expand(-1, group, length, -1)
        own = ~_causal(completions.flatten(0, 1)).view(rows, group, length, length)
        hidden = torch.cat([~seen, own], 3).view(rows * group, 1, length, -1)
        return cls(prompt, completions, above, hidden)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See :class:`fedgrpo.model.packed_attention.Selection`."""
        width = self.prompt.shape[1]
        contexts = [
            (only(states[:, :, :width], self.prompt), self._each(states[:, :, width:], zeroed=True))
            for states in (key, value)
        ]
        (prompt_k, own_k), (prompt_v, own_v) = contexts
        above = attend(query[:, :, :width], prompt_k, prompt_v, self.prompt_hidden, scale)
        below = attend(
            self._each(query[:, :, width:]),
            torch.cat([self._shared(prompt_k), own_k], 2),
            torch.cat([self._shared(prompt_v), own_v], 2),
            self.hidden,
            scale,
        )
        return torch.cat([above, below.reshape(len(query), -1, *below.shape[2:])], 1)

    def to(self, device: torch.device) -> GroupGrid:
        """The same on a device."""
        parts = (self.prompt, self.completions, self.prompt_hidden, self.hidden)
        return GroupGrid(*(part.to(device) for part in parts))

    def _each(self, states: Tensor, *, zeroed: bool = False) -> Tensor:
        """(R, heads, G * T, size) to (R * G, heads, T, size)."""
        _, group, length = self.completions.shape
        each = states.unflatten(2, (group, length)).transpose(1, 2).flatten(0, 1)
        return only(each, self.completions.flatten(0, 1)) if zeroed else each

    def _shared(self, states: Tensor) -> Tensor:
        """(R, heads, W, size) to (R * G, heads, W, size)."""
        group = self.completions.shape[1]
        return states[:, None].expand(-1, group, -1, -1, -1).flatten(0, 1)


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
