"""A private round's completions and lessons: prompts side by side in fixed shapes, each as if it
were alone, and each failing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.grpo.isolated.keys import Row, uniforms
from fedgrpo.grpo.isolated.sampling import MOST_PROMPTS, sample_grid
from fedgrpo.grpo.isolated.shapes import (
    Guard,
    Layout,
    Schedule,
    TeachingShape,
    suspects_last,
)
from fedgrpo.grpo.isolated.slots import Sampled, SamplingShape
from fedgrpo.grpo.isolated.teaching import batch_loss, taught_lengths, teaching_batch
from fedgrpo.grpo.learning.judging import advantages
from fedgrpo.grpo.rollout.experience import Experience, judge
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.rewards.composite import RewardMixture

T = TypeVar("T")

RowGradients = Callable[[nn.Module, Sequence[nn.Parameter], Callable[[], Tensor], int], Tensor]
"""From model, parameters, loss and number of rows to float64 gradients, shape (R, d)."""


@dataclass(frozen=True)
class Judged:
    """One prompt's completions, judged."""

    row: Row
    experience: Experience


@dataclass(frozen=True)
class Lesson:
    """What one prompt says: its judged completions, and a gradient if they teach anything."""

    judged: Judged
    gradient: Tensor | None
    """float64, shape (d,), of the loss, not clipped. None: nothing to learn."""


class Engine:
    """Samples, judges and learns from prompts that are strangers to each other.

    Parameters
    ----------
    reward:
        Judges one prompt's group at a time.
    layout:
        Shapes in which prompts are strangers, as was tried: see
        :mod:`fedgrpo.grpo.isolated.proof`.
    gradients:
        Takes one gradient a row.
    unit_rows:
        Most rows of a unit a round.
    """

    def __init__(
        self,
        policy: Policy,
        reward: RewardMixture,
        prompts: Sequence[PromptRow],
        layout: Layout,
        gradients: RowGradients,
        *,
        unit_rows: int = 1,
    ) -> None:
        self.policy, self.reward, self.prompts = policy, reward, prompts
        self.layout, self.gradients, self.unit_rows = layout, gradients, unit_rows
        self.settings, self.base = policy.settings, policy.adapter.base

    def collect(self, rows: Sequence[Row], guard: Guard) -> list[Judged]:
        """Sample and judge; what fails is left out and counted.

        Rows come back in the order given, but for rows of a unit, which stand where its first one
        does. Where time runs out, the units at the end of the order are left out: see
        :func:`fedgrpo.grpo.isolated.shapes.certain`.
        """
        self.reward.bind(self.policy.adapter)
        rows = _together(rows, lambda row: row.unit, guard.suspects)
        found: dict[Row, Judged] = {}
        ready: set[str] = set()
        for batch, sure in suspects_last(self._sampling(), rows, _suspect(guard), guard.left):
            found |= {judged.row: judged for judged in self._attempted(batch, guard)}
            ready = self._ready(rows, sure)
        _count("left out: time was over", sum(row.unit not in ready for row in rows), guard)
        return [found[row] for row in rows if row in found and row.unit in ready]

    def teach(
        self, judged: Sequence[Judged], guard: Guard
    ) -> Iterator[tuple[list[Lesson], set[str]]]:
        """Take the gradients of what teaches.

        Yields
        ------
        Lessons of a batch, first those without a gradient; and the units of which nothing is left
        to come. It ends early where time runs out.
        """
        shapes = {j.row: shape for j in judged if (shape := self._shape(j))}
        left = _together(
            [j for j in judged if j.row in shapes], lambda j: j.row.unit, guard.suspects
        )
        pending = {j.row.unit for j in left}
        silent = [Lesson(j, None) for j in judged if j.row not in shapes]
        yield silent, {lesson.judged.row.unit for lesson in silent} - pending
        suspect = _suspect(guard)
        schedule = self._teaching(shapes)
        for batch, sure in suspects_last(schedule, left, lambda j: suspect(j.row), guard.left):
            lessons = self._learned(batch, shapes[batch[0].row], guard)
            done = self._ready([j.row for j in left], sure) & pending
            yield lessons, done
            pending -= done
        _count("left out: time was over", len(pending), guard)

    def sample(
        self, batch: Sequence[Row], shape: SamplingShape, eos_ids: tuple[int, ...] | None = None
    ) -> Sampled:
        """Completions of these prompts, to the model's own end tokens unless others are given."""
        plan = self.policy.sampling_plan()
        if eos_ids is not None:
            # Texts that stop are looked for as ever, so that a trial takes the time it takes.
            plan = replace(plan, eos_ids=eos_ids, stops=plan.stops and plan.stops.never())
        numbers = [uniforms(row.key, plan.group_size, plan.max_tokens) for row in batch]
        prompts = [row.ids for row in batch]
        with self.policy.adapter.merged():
            causal = self.policy.adapter.causal
            return sample_grid(causal, prompts, torch.stack(numbers), shape, plan)

    def gradient_rows(self, groups: Sequence[Experience], shape: TeachingShape) -> Tensor:
        """Gradient of each of these prompts, float64, shape (n, d)."""
        adapter, rows = self.policy.adapter, self.layout.side(shape)
        filled = [*groups, *[None] * (rows - len(groups))]
        pad = int(self.base.tokenizer.pad_token_id)
        batch = teaching_batch(filled, shape, self.settings, pad)
        return self.gradients(
            adapter.causal,
            list(adapter.trainable.values()),
            lambda: batch_loss(adapter.causal, batch, self.settings),
            rows,
        )[: len(groups)]

    def _attempted(self, batch: Sequence[Row], guard: Guard) -> list[Judged]:
        """Sample a batch and judge each of its prompts by itself."""
        guard.begin([row.unit for row in batch])
        sampled = self.sample(batch, self._sampled_in(batch[0]))
        fine = [place for place in range(len(batch)) if sampled.sound[place]]
        _count("prompt left out: the model gave no distribution", len(batch) - len(fine), guard)
        judged = [self._judged(batch[i], sampled.group(i, batch[i].ids), guard) for i in fine]
        guard.end()
        return [item for item in judged if item]

    def _judged(self, row: Row, rollout: Rollout, guard: Guard) -> Judged | None:
        """Judge one prompt's completions; None if that cannot be done."""
        experience: Experience | None
        try:
            with np.errstate(all="ignore"):
                experience = self._experience(row, rollout)
        except BaseException as error:
            # Whatever a reward or a tokenizer does with one prompt's texts is that prompt's affair.
            # What they raise may quote them.
            pass_on_interrupt(error)
            experience = None
        if experience is None or not experience.advantages.isfinite().all():
            _count("prompt left out: its completions cannot be judged", 1, guard)
            return None
        silent = sum(np.isnan(values).all() for values in experience.rewards.measured.values())
        _count("figure of a prompt left out: its metric gave no number", int(silent), guard)
        return Judged(row, experience)

    def _experience(self, row: Row, rollout: Rollout) -> Experience:
        texts = self.policy.decode(rollout)
        ids, prompt = completion_ids(rollout), self.prompts[row.index]
        rewards = judge(self.reward, [prompt], texts, ids, rollout.group_size)
        worth = advantages(self.settings, self.reward, rollout, rewards, 1)
        return Experience(rollout, rewards, worth)

    def _learned(self, batch: Sequence[Judged], shape: TeachingShape, guard: Guard) -> list[Lesson]:
        """Gradients of a batch; a prompt whose gradient is not finite has nothing to say."""
        guard.begin([j.row.unit for j in batch])
        groups = [j.experience for j in batch]
        gradients = self.gradient_rows(groups, shape)
        finite = gradients.isfinite().all(1)
        _count("prompt left out: its gradient is not finite", int((~finite).sum()), guard)
        guard.end()
        return [Lesson(batch[i], gradients[i]) for i in range(len(batch)) if finite[i]]

    def _sampling(self) -> Schedule[Row]:
        most = MOST_PROMPTS
        return Schedule(self._sampled_in, lambda _: most, most, len(self.layout.widths))

    def _teaching(self, shapes: Mapping[Row, TeachingShape]) -> Schedule[Judged]:
        every = self.layout.teaching_shapes()
        return Schedule(
            lambda j: shapes[j.row],
            lambda j: self.layout.side(shapes[j.row]),
            min(map(self.layout.side, every)),
            len(every),
        )

    def _sampled_in(self, row: Row) -> SamplingShape:
        return self.layout.sampling(len(row.ids))

    def _shape(self, judged: Judged) -> TeachingShape | None:
        """Shape in which a prompt is learned from; None if it teaches nothing."""
        lengths = taught_lengths(judged.experience, self.settings)
        return self.layout.teaching(len(judged.row.ids), lengths) if lengths else None

    def _ready(self, rows: Sequence[Row], sure: int) -> set[str]:
        """Units that are done for certain, if the first ``sure`` rows are; those of a unit must
        stand together.
        """
        names = list(dict.fromkeys(row.unit for row in rows))
        return set(names if sure >= len(rows) else names[: sure // self.unit_rows])


def _together(items: Sequence[T], unit: Callable[[T], str], suspects: Collection[str]) -> list[T]:
    """Items of a unit side by side, where its first one stands, and suspects behind all others:
    otherwise the same order.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(map(unit, items)))}
    return sorted(items, key=lambda item: (unit(item) in suspects, places[unit(item)]))


def _suspect(guard: Guard) -> Callable[[Row], str]:
    """Name of a row's unit if it may not be beside others."""
    return lambda row: row.unit if row.unit in guard.suspects else ""


def _count(cause: str, times: int, guard: Guard) -> None:
    if times:
        guard.mishaps[cause] += times
