"""Rollout in fixed shapes: a prompt's completions are a function of the prompt, its key, the model
and the shape.

Prompts of one width go through the model a few at a time. Their completions then take turns on a
fixed number of slots: a slot whose completion has ended takes the next one, at whatever step, so
that the step's shape is always the same and no slot waits for the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fedgrpo.grpo.isolated.slots import Sampled, SamplingShape, Seen, Slots, forward, is_captured
from fedgrpo.grpo.rollout.choice.warping import NOTHING
from fedgrpo.grpo.rollout.replay import BUSY, keep_nothing, kept
from fedgrpo.grpo.rollout.sampling import SamplingPlan
from fedgrpo.model.kernels.attention import new_cache
from fedgrpo.model.kernels.grid_attention import PlainGrid, only, prompt_hidden

MOST_PROMPTS = 64
"""Prompts whose completions take turns on the same slots."""


@torch.no_grad()
def sample_grid(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    shape: SamplingShape,
    plan: SamplingPlan,
) -> Sampled:
    """Sample ``plan.group_size`` completions of each prompt.

    Parameters
    ----------
    model:
        Takes any mask.
    prompts:
        P lists of 1 to ``shape.width`` token ids, P at most ``MOST_PROMPTS``.
    uniform:
        float64, shape (P, G, T): the number that each token is the inverse transform of.
    shape:
        Must not depend on which prompts there are.
    plan:
        Temperature above 0; nothing is read of its memory.
    """
    seen = [
        _prefilled(model, prompts[start : start + shape.rows], shape, plan.pad_id)
        for start in range(0, len(prompts), shape.rows)
    ]
    with BUSY if is_captured(model) else nullcontext():
        return _slots(model, shape, plan, seen).run(
            _joined(seen), uniform.flatten(0, 1), plan.stops
        )


def _slots(
    model: PreTrainedModel, shape: SamplingShape, plan: SamplingPlan, seen: Sequence[Seen]
) -> Slots:
    """Slots for these prompts; on a GPU those that were captured last, if they are of this shape,
    whose room is for as many prompts as a call may have.
    """
    plan = replace(plan, stops=None)
    most = plan.group_size * sum(len(part.logits) for part in seen)
    if not is_captured(model):
        return Slots(model, shape, plan, seen[0], most)
    most = max(most, plan.group_size * MOST_PROMPTS)

    def made() -> Slots:
        # One set of buffers at a time is what was foretold.
        keep_nothing(model)
        return Slots(model, shape, plan, seen[0], most)

    return kept(model, ("slots", shape, plan, most), made)


def _prefilled(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], shape: SamplingShape, pad_id: int
) -> Seen:
    """Send a few prompts through the model, with fillers for the missing ones."""
    count = len(prompts)
    filled = [*prompts, *[()] * (shape.rows - count)]
    ids, real = (t.to(model.device) for t in left_filled(filled, shape.width, pad_id))
    positions = (real.cumsum(1) - 1).clamp(min=0)
    cache = new_cache(model)
    logits = forward(model, ids, positions, cache, PlainGrid(prompt_hidden(real), real))
    layers: list[Any] = list(cache.layers)
    states = [(only(x.keys, real)[:count], only(x.values, real)[:count]) for x in layers]
    ids = ids.masked_fill(~real, NOTHING)
    return Seen(states, logits[:count], real[:count], ids[:count], positions[:count, -1])


def _joined(parts: Sequence[Seen]) -> Seen:
    layers = [
        (torch.cat([keys for keys, _ in each]), torch.cat([values for _, values in each]))
        for each in zip(*(part.layers for part in parts), strict=True)
    ]
    names = ("logits", "real", "ids", "last")
    return Seen(layers, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


def left_filled(prompts: Sequence[Sequence[int]], width: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids, int64, and where there are any, bool; both of shape (R, width)."""
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    real = torch.zeros(len(prompts), width, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        if prompt:
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            real[i, width - len(prompt) :] = True
    return ids, real
