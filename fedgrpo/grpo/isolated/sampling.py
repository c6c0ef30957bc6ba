"""Rollout in fixed shapes: a prompt's completions are a function of the prompt, its key, the model
and the shape.

Prompts of one width go through the model a few at a time. Their completions then take turns on a
fixed number of slots: a slot whose completion has ended takes the next one, at whatever step, so
that the step's shape is always the same and no slot waits for the longest. Keys and values stand in
buffers that do not move: what a captured graph needs, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedgrpo.grpo.rollout.choice.drawing import invert
from fedgrpo.grpo.rollout.choice.warping import NOTHING, PLAIN, Warping, marked
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan
from fedgrpo.model.family.passes import arguments
from fedgrpo.model.kernels.attention import new_cache
from fedgrpo.model.kernels.grid_attention import PlainGrid, only, prompt_hidden

LOOK_EVERY = 8
"""Steps between two looks at which slots are free, on a device that would have to be waited for."""


@dataclass(frozen=True)
class SamplingShape:
    """Shapes of a rollout.

    Attributes
    ----------
    width:
        Columns of the prompts, W.
    rows:
        Prompts that go through the model together.
    slots:
        Completions that are decoded together.
    """

    width: int
    rows: int
    slots: int


@dataclass(frozen=True)
class Sampled:
    """Completions of R prompts, G each, on the CPU.

    Attributes
    ----------
    tokens, logps, mask, ended:
        As in :class:`fedgrpo.grpo.rollout.sampling.Rollout`, shapes (R, G, T) and (R, G).
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
    shape: SamplingShape,
    plan: SamplingPlan,
) -> Sampled:
    """Sample ``plan.group_size`` completions of each prompt.

    Parameters
    ----------
    model:
        Takes any mask.
    prompts:
        P lists of 1 to ``shape.width`` token ids.
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
    slots = _Slots(model, shape, plan, _joined(seen), uniform.flatten(0, 1).to(model.device))
    return slots.run(len(prompts))


def choose(
    logits: Tensor,
    temperature: float,
    uniform: Tensor,
    warping: Warping = PLAIN,
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Token, log-probability, and whether there was a distribution at all, each of shape (rows,),
    from logits (rows, V) and uniform numbers (rows, 1); see :meth:`Warping.applied`.
    """
    logps = warping.applied(logits.float() / temperature, seen).log_softmax(-1)
    weights = logps.exp()
    fine = weights.isfinite().all(-1)
    token = invert(torch.where(fine[:, None], weights, 1.0), uniform)
    return token[:, 0], logps.gather(1, token)[:, 0], fine


@dataclass(frozen=True)
class _Seen:
    """P prompts as the model has seen them.

    Attributes
    ----------
    layers:
        Keys and values of each layer, (P, heads, W, size), zero where there is no token.
    logits, real, ids, last:
        Of the next token (P, V); where there are tokens, and which, ``NOTHING`` where there are
        none, (P, W); position of the last one (P,).
    """

    layers: list[tuple[Tensor, Tensor]]
    logits: Tensor
    real: Tensor
    ids: Tensor
    last: Tensor


def _prefilled(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], shape: SamplingShape, pad_id: int
) -> _Seen:
    """Send a few prompts through the model, with fillers for the missing ones."""
    count = len(prompts)
    filled = [*prompts, *[()] * (shape.rows - count)]
    ids, real = (t.to(model.device) for t in left_filled(filled, shape.width, pad_id))
    positions = (real.cumsum(1) - 1).clamp(min=0)
    cache = new_cache(model)
    logits = _forward(model, ids, positions, cache, PlainGrid(prompt_hidden(real), real))
    layers: list[Any] = list(cache.layers)
    kept = [(only(x.keys, real)[:count], only(x.values, real)[:count]) for x in layers]
    ids = ids.masked_fill(~real, NOTHING)
    return _Seen(kept, logits[:count], real[:count], ids[:count], positions[:count, -1])


def _joined(parts: Sequence[_Seen]) -> _Seen:
    layers = [
        (torch.cat([keys for keys, _ in each]), torch.cat([values for _, values in each]))
        for each in zip(*(part.layers for part in parts), strict=True)
    ]
    names = ("logits", "real", "ids", "last")
    return _Seen(layers, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


class _Slots:
    """Slots on which completions take turns; completion ``p * G + g`` is one of prompt p.

    Attributes
    ----------
    owner, step:
        int64, shape (S,): completion in each slot, and its next token. A free slot goes on with
        what it had, and nobody looks.
    already:
        Bool, shape (S, V): tokens that each slot has, where that matters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: SamplingShape,
        plan: SamplingPlan,
        seen: _Seen,
        points: Tensor,
    ) -> None:
        self.model, self.plan, self.seen, self.points = model, plan, seen, points
        self.width, self.count, device = shape.width, shape.slots, model.device
        columns = shape.width + plan.max_tokens
        self.layers = [_SlotLayer(k, v, self.count, columns) for k, v in seen.layers]
        self.cache = Cache(layers=list(self.layers))
        self.real = torch.zeros(self.count, columns, dtype=torch.bool, device=device)
        self.owner, self.step, self.last, self.looked = (
            torch.zeros(self.count, dtype=torch.long, device=device) for _ in range(4)
        )
        self.logits = seen.logits.new_zeros(self.count, seen.logits.shape[1])
        self.ends = torch.tensor(plan.eos_ids, device=device)
        vocabulary = seen.logits.shape[1] if plan.warping.penalises else 0
        self.already = torch.zeros(self.count, vocabulary, dtype=torch.bool, device=device)

    def run(self, prompts: int) -> Sampled:
        """Serve all completions of this many prompts."""
        group, length, device = self.plan.group_size, self.plan.max_tokens, self.model.device
        total = prompts * group
        # One row more than there are completions: what free slots draw goes there.
        tokens = torch.full((total + 1, length), self.plan.pad_id, device=device)
        logps = torch.zeros(total + 1, length, device=device)
        sound = torch.ones(total + 1, dtype=torch.bool, device=device)
        running = torch.zeros(self.count, dtype=torch.bool, device=device)
        begun, turn = 0, 0
        every = 1 if device.type == "cpu" else LOOK_EVERY
        while True:
            if turn % every == 0:
                self._end_at_stops(tokens, running)
                begun = self._fill(running, begun, total)
                if not running.any():
                    break
            turn += 1
            number = torch.where(running, self.owner, total)
            step = self.step.clamp(max=length - 1)
            points = self.points[self.owner, step][:, None]
            token, logp, fine = self._chosen(points)
            tokens[number, step], logps[number, step] = token, logp
            sound[number] &= fine
            running &= fine & ~torch.isin(token, self.ends) & (step < length - 1)
            if every == 1 and begun == total and not running.any():
                break
            self._advance(token, step)
        return _tidied(tokens[:total], logps[:total], self.ends, self.plan, sound[:total])

    def _chosen(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :func:`choose`."""
        warping = self.plan.warping
        chosen = choose(self.logits, self.plan.temperature, points, warping, self.already)
        if warping.penalises:
            self.already.scatter_(1, chosen[0][:, None], True)
        return chosen

    def _end_at_stops(self, tokens: Tensor, running: Tensor) -> None:
        """Free the slots whose completions have come to a text that stops."""
        slots = running.nonzero()[:, 0]
        if not self.plan.stops or not len(slots):
            return
        lengths, looked = self.step[slots], self.looked[slots].tolist()
        ends = self.plan.stops.reached(tokens[self.owner[slots]], lengths.tolist(), looked)
        self.looked[slots] = lengths
        running[slots] = torch.tensor([not end for end in ends], device=running.device)

    def _fill(self, running: Tensor, begun: int, total: int) -> int:
        """Give free slots to the next completions; returns how many have begun by now."""
        free = (~running).nonzero()[: total - begun, 0]
        if not len(free):
            return begun
        owner = torch.arange(begun, begun + len(free), device=free.device)
        prompt = owner // self.plan.group_size
        for layer in self.layers:
            layer.take(free, prompt)
        self.real[free] = False
        self.real[free, : self.width] = self.seen.real[prompt]
        self.owner[free], self.step[free], self.looked[free] = owner, 0, 0
        if self.plan.warping.penalises:
            self.already[free] = marked(self.seen.ids[prompt], self.already.shape[1])
        self.last[free], self.logits[free] = self.seen.last[prompt], self.seen.logits[prompt]
        running[free] = True
        return begun + len(free)

    def _advance(self, tokens: Tensor, step: Tensor) -> None:
        """Take the next token of every slot, shape (S,)."""
        column = self.width + step
        self.real[torch.arange(self.count, device=column.device), column] = True
        for layer in self.layers:
            layer.column = column
        self.last = self.last + (step < self.plan.max_tokens - 1)
        self.step = step + 1
        grid = PlainGrid(~self.real[:, None, None])
        positions = self.last[:, None]
        self.logits = _forward(self.model, tokens[:, None], positions, self.cache, grid)


class _SlotLayer(DynamicLayer):
    """One layer's keys and values in a buffer of fixed size, zero wherever there is no token."""

    def __init__(self, keys: Tensor, values: Tensor, slots: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._seen = (keys, values)
        self._buffers = [
            states.new_zeros(slots, states.shape[1], columns, states.shape[3])
            for states in self._seen
        ]
        self._slots = torch.arange(slots, device=keys.device)
        self.column = self._slots

    def take(self, slots: Tensor, prompts: Tensor) -> None:
        """Begin anew in these slots behind these prompts: nothing of the slot's past stays."""
        for buffer, seen in zip(self._buffers, self._seen, strict=True):
            width = seen.shape[2]
            buffer[slots, :, :width] = seen[prompts]
            buffer[slots, :, width:] = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write each slot's next column; returns all columns."""
        keys, values = self._buffers
        keys[self._slots, :, self.column] = key_states[:, :, 0]
        values[self._slots, :, self.column] = value_states[:, :, 0]
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        """Columns of the buffer; positions are given, so nothing is counted from it."""
        return int(self._buffers[0].shape[2])


def _tidied(
    tokens: Tensor, logps: Tensor, ends: Tensor, plan: SamplingPlan, sound: Tensor
) -> Sampled:
    """Fill what stands behind an end, and give each prompt its group."""
    is_end = torch.isin(tokens, ends)
    mask = is_end.cumsum(1) - is_end.long() == 0
    if plan.stops:
        is_end = is_end | plan.stops.marks(tokens, mask.sum(1))
        mask = is_end.cumsum(1) - is_end.long() == 0

    def grouped(values: Tensor) -> Tensor:
        return values.view(-1, plan.group_size, *values.shape[1:]).cpu()

    return Sampled(
        grouped(tokens.masked_fill(~mask, plan.pad_id)),
        grouped(logps.masked_fill(~mask, 0.0)),
        grouped(mask),
        grouped(is_end.any(1)),
        grouped(sound).all(1),
    )


def _forward(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, cache: Cache, grid: PlainGrid
) -> Tensor:
    """Logits behind the last column, shape (B, V)."""
    # A 4-D mask is handed on as it is, and the grid takes its place.
    nothing = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)
    given = arguments(model, ids, nothing, positions, cache)
    logits: Tensor = model(**given, logits_to_keep=1, packing=grid).logits[:, -1]
    return logits


def left_filled(prompts: Sequence[Sequence[int]], width: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids, int64, and where there are any, bool; both of shape (R, width)."""
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    real = torch.zeros(len(prompts), width, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        if prompt:
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            real[i, width - len(prompt) :] = True
    return ids, real
