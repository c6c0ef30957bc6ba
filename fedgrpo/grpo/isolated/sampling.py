"""Rollout in fixed shapes: a prompt's completions are a function of the prompt, its key, the model
and the shape.

R prompts of one width go through the model together. No row leaves the batch before all of them
have ended, keys and values stand in buffers that do not move, and every step's shape follows from
its number alone: what a captured graph needs, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedgrpo.grpo.sampling import Rollout, SamplingPlan, invert
from fedgrpo.model.grid_attention import PlainGrid, only, prompt_hidden

SHOWN = 64
"""Columns by which the part of the cache that is looked at grows."""
ASK_EVERY = 16
"""Steps between two looks at whether all have ended, on a device that would have to be waited
for.
"""


@dataclass(frozen=True)
class Sampled:
    """Completions of R prompts, G each, on the CPU.

    Attributes
    ----------
    tokens, logps, mask, ended:
        As in :class:`fedgrpo.grpo.sampling.Rollout`, shapes (R, G, T) and (R, G).
    sound:
        Bool, shape (R,): false where the model gave something that is no distribution.
    """

    tokens: Tensor
    logps: Tensor
    mask: Tensor
    ended: Tensor
    sound: Tensor

    def group(self, row: int, prompt: tuple[int, ...]) -> Rollout:
        """The completions of one prompt."""
        parts = (self.tokens[row], self.logps[row], self.mask[row], self.ended[row])
        return Rollout((prompt,), *parts, self.tokens.shape[1])


@torch.no_grad()
def sample_grid(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    width: int,
    plan: SamplingPlan,
) -> Sampled:
    """Sample ``plan.group_size`` completions of each prompt.

    Parameters
    ----------
    model:
        Takes any mask.
    prompts:
        R lists of 0 to ``width`` token ids. An empty one fills the batch; what is sampled for it
        means nothing.
    uniform:
        float64, shape (R, G, T): the number that each token is the inverse transform of.
    width:
        Columns of the prompts, W.
    plan:
        Group size, length, temperature above 0, end tokens and filler.
    """
    device, group = model.device, plan.group_size
    state = _Decoding(model, prompts, width, plan)
    ends = torch.tensor(plan.eos_ids, device=device)
    points = uniform.flatten(0, 1).to(device)
    rows = len(points)
    tokens = torch.full((rows, plan.max_tokens), plan.pad_id, dtype=torch.long, device=device)
    logps = torch.zeros(rows, plan.max_tokens, device=device)
    sound = torch.ones(rows, dtype=torch.bool, device=device)
    running = torch.tensor([bool(p) for p in prompts], device=device).repeat_interleave(group)
    for step in range(plan.max_tokens):
        token, logp, fine = choose(state.logits, plan.temperature, points[:, step : step + 1])
        tokens[:, step], logps[:, step] = token, logp
        sound &= fine | ~running
        running = running & fine & ~torch.isin(token, ends)
        asked = device.type == "cpu" or step % ASK_EVERY == ASK_EVERY - 1
        if step == plan.max_tokens - 1 or (asked and not running.any()):
            break
        state.advance(token)
    sound_rows = sound.view(len(prompts), group).all(1)
    return _tidied(tokens, logps, ends, plan, sound_rows)


def _tidied(
    tokens: Tensor, logps: Tensor, ends: Tensor, plan: SamplingPlan, sound: Tensor
) -> Sampled:
    """Fill what stands behind an end token: how far a batch went on must not show."""
    is_end = torch.isin(tokens, ends)
    mask = is_end.cumsum(1) - is_end.long() == 0
    parts = (
        tokens.masked_fill(~mask, plan.pad_id),
        logps.masked_fill(~mask, 0.0),
        mask,
        is_end.any(1),
    )
    shaped = (part.unflatten(0, (len(sound), plan.group_size)).cpu() for part in parts)
    return Sampled(*shaped, sound.cpu())


def choose(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token, log-probability, and whether there was a distribution at all, each of shape (rows,),
    from logits (rows, V) and uniform numbers (rows, 1).
    """
    logps = (logits.float() / temperature).log_softmax(-1)
    weights = logps.exp()
    fine = weights.isfinite().all(-1)
    token = invert(torch.where(fine[:, None], weights, 1.0), uniform)
    return token[:, 0], logps.gather(1, token)[:, 0], fine


class _Decoding:
    """R * G rows on their way through the model.

    Attributes
    ----------
    logits:
        Of the next token, shape (R * G, V).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        width: int,
        plan: SamplingPlan,
    ) -> None:
        self._model, self._width = model, width
        ids, real = left_filled(prompts, width, plan.pad_id)
        ids, real = ids.to(model.device), real.to(model.device)
        positions = (real.cumsum(1) - 1).clamp(min=0)
        cache: Cache = DynamicCache(config=model.config)
        grid = PlainGrid(prompt_hidden(real), real)
        logits = _forward(model, ids, positions, cache, grid)
        self._place = _Place(width, plan.max_tokens)
        layers: list[Any] = [
            _FixedLayer(layer, real, plan.group_size, self._place) for layer in cache.layers
        ]
        self._cache = Cache(layers=layers)
        later = real.new_zeros(len(real), plan.max_tokens)
        self.logits, self._real, self._position = (
            t.repeat_interleave(plan.group_size, 0)
            for t in (logits, torch.cat([real, later], 1), positions[:, -1:])
        )

    def advance(self, tokens: Tensor) -> None:
        """Take the next token of every row, shape (R * G,)."""
        self._real[:, self._place.column] = True
        self._position = self._position + 1
        hidden = ~self._real[:, None, None, : self._place.shown]
        grid = PlainGrid(hidden)
        self.logits = _forward(self._model, tokens[:, None], self._position, self._cache, grid)
        self._place.column += 1


class _Place:
    """Where the next token's keys and values go, and how much of the cache is looked at."""

    def __init__(self, width: int, room: int) -> None:
        self.column, self.size = width, width + room

    @property
    def shown(self) -> int:
        return min(self.size, -(-(self.column + 1) // SHOWN) * SHOWN)


class _FixedLayer(DynamicLayer):
    """One layer's keys and values in a buffer of fixed size, zero wherever there is no token."""

    def __init__(self, seen: Any, real: Tensor, group: int, place: _Place) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(seen.keys, seen.values)
        self._place = place
        self._buffers = [
            _with_room(only(states, real), group, place.size) for states in (seen.keys, seen.values)
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the next column; returns views of the columns that are looked at."""
        keys, values = self._buffers
        keys[:, :, self._place.column] = key_states[:, :, 0]
        values[:, :, self._place.column] = value_states[:, :, 0]
        shown = self._place.shown
        return keys[:, :, :shown], values[:, :, :shown]

    def get_seq_length(self, *_: Any) -> int:
        """Columns before the next one."""
        return self._place.column


def _with_room(states: Tensor, group: int, size: int) -> Tensor:
    """(R, heads, W, d) to (R * G, heads, size, d), zero behind the prompt."""
    rows, heads, width, depth = states.shape
    buffer = states.new_zeros(rows, group, heads, size, depth)
    buffer[:, :, :, :width] = states[:, None]
    return buffer.flatten(0, 1)


def _forward(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, cache: Cache, grid: PlainGrid
) -> Tensor:
    """Logits behind the last column, shape (B, V)."""
    # A 4-D mask is handed on as it is, and the grid takes its place.
    nothing = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)
    logits: Tensor = model(
        input_ids=ids,
        attention_mask=nothing,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        packing=grid,
    ).logits[:, -1]
    return logits


def left_filled(
    prompts: Sequence[Sequence[int]], width: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Token ids, int64, and where there are any, bool; both of shape (R, width)."""
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    real = torch.zeros(len(prompts), width, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        if prompt:
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            real[i, width - len(prompt) :] = True
    return ids, real
