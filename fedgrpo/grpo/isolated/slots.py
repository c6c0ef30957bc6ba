"""Completions that take turns on a fixed number of slots, whose buffers stay where they are.

One turn draws every slot's next token and takes it: the same work on the same addresses every time,
which a GPU replays as a graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedgrpo.grpo.rollout.choice.drawing import invert
from fedgrpo.grpo.rollout.choice.stops import Stops
from fedgrpo.grpo.rollout.choice.warping import PLAIN, Warping, marked
from fedgrpo.grpo.rollout.replay import Replay
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan
from fedgrpo.model.family.passes import arguments
from fedgrpo.model.kernels.grid_attention import PlainGrid

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


@dataclass(frozen=True)
class Seen:
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


def is_captured(model: PreTrainedModel) -> bool:
    """Whether turns are replayed as a graph, so that looking at what came of them costs a wait."""
    return bool(model.device.type == "cuda") and not waits(model)


def waits(model: PreTrainedModel) -> bool:
    """Whether a pass of a model waits for the device, which no graph can: rotary frequencies that
    change with the length of rows do, to look at it.
    """
    kinds = (str(getattr(part, "rope_type", "")) for part in model.modules())
    return any("dynamic" in kind or "longrope" in kind for kind in kinds)


class Slots:
    """Slots on which completions take turns; completion ``p * G + g`` is one of prompt p.

    One turn works on buffers that stay where they are, so that a GPU replays it as a graph.

    Parameters
    ----------
    like:
        Prompts of the same width, for shapes and precision.
    most:
        Completions of a call, N at most.

    Attributes
    ----------
    owner, step:
        int64, shape (S,): completion in each slot, and its next token. A free slot goes on with
        what it had, and nobody looks.
    already:
        Bool, shape (S, V): tokens that each slot has, where that matters.
    tokens, logps, sound:
        What was drawn, shape (N + 1, T), and whether it could be, (N + 1,). What free slots draw
        goes into the last row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: SamplingShape,
        plan: SamplingPlan,
        like: Seen,
        most: int,
    ) -> None:
        self.model, self.plan = model, plan
        self.width, self.count, device = shape.width, shape.slots, model.device
        columns, length = shape.width + plan.max_tokens, plan.max_tokens
        self.layers = [_SlotLayer(k, v, self.count, columns) for k, v in like.layers]
        self.cache = Cache(layers=list(self.layers))
        self.real = torch.zeros(self.count, columns, dtype=torch.bool, device=device)
        self.owner, self.step, self.last, self.looked = (
            torch.zeros(self.count, dtype=torch.long, device=device) for _ in range(4)
        )
        self.running = torch.zeros(self.count, dtype=torch.bool, device=device)
        self.logits = like.logits.new_zeros(self.count, like.logits.shape[1])
        self.ends = torch.tensor(plan.eos_ids, device=device)
        vocabulary = like.logits.shape[1] if plan.warping.penalises else 0
        self.already = torch.zeros(self.count, vocabulary, dtype=torch.bool, device=device)
        self.points = torch.zeros(most, length, dtype=torch.float64, device=device)
        self.tokens = torch.full((most + 1, length), plan.pad_id, device=device)
        self.logps = torch.zeros(most + 1, length, device=device)
        self.sound = torch.ones(most + 1, dtype=torch.bool, device=device)
        self._token = torch.zeros_like(self.step)
        self._slots = torch.arange(self.count, device=device)
        self._replay = Replay(self.turn, self.state())
        if is_captured(model):
            # On empty slots: whatever it writes there, taking a slot wipes.
            self._replay()

    def state(self) -> list[Tensor]:
        """All that decides the next turn, but for keys and values."""
        walk = [self.step, self.last, self.owner, self.running, self.real, self.logits]
        return [*walk, self.already, self.points, self.tokens, self.logps, self.sound]

    def run(self, seen: Seen, points: Tensor, stops: Stops | None) -> Sampled:
        """Serve all completions of these prompts.

        Parameters
        ----------
        points:
            float64, shape (n, T): the number that each token is the inverse transform of.
        stops:
            Looked for between turns, by the CPU.
        """
        total = len(points)
        self._begin(points)
        captured = is_captured(self.model)
        begun, turns, every = 0, 0, LOOK_EVERY if captured else 1
        while True:
            if turns % every == 0:
                self._end_at_stops(stops)
                begun = self._fill(seen, begun, total)
                if not self.running.any():
                    break
            turns += 1
            if captured:
                self._replay()
                continue
            self._draw()
            if begun == total and not self.running.any():
                break
            self._advance()
        drawn = (self.tokens[:total], self.logps[:total], self.ends)
        return _tidied(*drawn, replace(self.plan, stops=stops), self.sound[:total])

    def turn(self) -> None:
        """Draw every slot's next token, and take it."""
        self._draw()
        self._advance()

    def _begin(self, points: Tensor) -> None:
        self.points[: len(points)] = points
        self.tokens.fill_(self.plan.pad_id)
        self.logps.zero_()
        self.sound.fill_(True)
        for buffer in (self.owner, self.step, self.last, self.looked, self.real, self.running):
            buffer.zero_()

    def _draw(self) -> None:
        at = self.step.clamp(max=self.plan.max_tokens - 1)
        number = torch.where(self.running, self.owner, len(self.points))
        token, logp, fine = self._chosen(self.points[self.owner, at][:, None])
        self.tokens[number, at], self.logps[number, at] = token, logp
        self.sound[number] = self.sound[number] & fine
        on = fine & ~torch.isin(token, self.ends) & (at < self.plan.max_tokens - 1)
        self.running.logical_and_(on)
        self._token.copy_(token)

    def _chosen(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :func:`choose`."""
        warping = self.plan.warping
        chosen = choose(self.logits, self.plan.temperature, points, warping, self.already)
        if warping.penalises:
            self.already.scatter_(1, chosen[0][:, None], True)
        return chosen

    def _end_at_stops(self, stops: Stops | None) -> None:
        """Free the slots whose completions have come to a text that stops."""
        if not stops or not self.running.any():
            return
        slots = self.running.nonzero()[:, 0]
        lengths, looked = self.step[slots], self.looked[slots].tolist()
        ends = stops.reached(self.tokens[self.owner[slots]], lengths.tolist(), looked)
        self.looked[slots] = lengths
        self.running[slots] = torch.tensor([not end for end in ends], device=slots.device)

    def _fill(self, seen: Seen, begun: int, total: int) -> int:
        """Give free slots to the next completions; returns how many have begun by now."""
        free = (~self.running).nonzero()[: total - begun, 0]
        if not len(free):
            return begun
        owner = torch.arange(begun, begun + len(free), device=free.device)
        prompt = owner // self.plan.group_size
        for layer, states in zip(self.layers, seen.layers, strict=True):
            layer.take(free, states, prompt)
        self.real[free] = False
        self.real[free, : self.width] = seen.real[prompt]
        self.owner[free], self.step[free], self.looked[free] = owner, 0, 0
        if self.plan.warping.penalises:
            self.already[free] = marked(seen.ids[prompt], self.already.shape[1])
        self.last[free], self.logits[free] = seen.last[prompt], seen.logits[prompt]
        self.running[free] = True
        return begun + len(free)

    def _advance(self) -> None:
        """Take the token that every slot drew."""
        length = self.plan.max_tokens
        at = self.step.clamp(max=length - 1)
        column = self.width + at
        self.real[self._slots, column] = True
        for layer in self.layers:
            layer.column = column
        self.last.add_(at < length - 1)
        self.step.copy_(at + 1)
        grid = PlainGrid(~self.real[:, None, None])
        ids, positions = self._token[:, None], self.last[:, None]
        self.logits.copy_(forward(self.model, ids, positions, self.cache, grid))


class _SlotLayer(DynamicLayer):
    """One layer's keys and values in a buffer of fixed size, zero wherever there is no token."""

    def __init__(self, keys: Tensor, values: Tensor, slots: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.buffers = [
            states.new_zeros(slots, states.shape[1], columns, states.shape[3])
            for states in (keys, values)
        ]
        self._slots = torch.arange(slots, device=keys.device)
        self.column = self._slots

    def take(self, slots: Tensor, seen: tuple[Tensor, Tensor], prompts: Tensor) -> None:
        """Begin anew in these slots behind these prompts: nothing of the slot's past stays."""
        for buffer, states in zip(self.buffers, seen, strict=True):
            width = states.shape[2]
            buffer[slots, :, :width] = states[prompts]
            buffer[slots, :, width:] = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write each slot's next column; returns all columns."""
        keys, values = self.buffers
        keys[self._slots, :, self.column] = key_states[:, :, 0]
        values[self._slots, :, self.column] = value_states[:, :, 0]
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        """Columns of the buffer; positions are given, so nothing is counted from it."""
        return int(self.buffers[0].shape[2])


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


def forward(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, cache: Cache, grid: PlainGrid
) -> Tensor:
    """Logits behind the last column, shape (B, V)."""
    # A 4-D mask is handed on as it is, and the grid takes its place.
    nothing = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)
    given = arguments(model, ids, nothing, positions, cache)
    logits: Tensor = model(**given, logits_to_keep=1, packing=grid).logits[:, -1]
    return logits
