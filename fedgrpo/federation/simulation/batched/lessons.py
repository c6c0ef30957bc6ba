"""One gradient a prompt, over prompts of many clients.

The arithmetic is that of :mod:`fedgrpo.grpo.isolated`, in shapes that follow from who else is
there: faster, equal up to rounding, and no proof of isolation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedgrpo.grpo.isolated.shapes import TeachingShape
from fedgrpo.grpo.isolated.teaching import batch_loss, taught_lengths, teaching_batch
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.family.row_gradients import hookable, row_gradients

COLUMNS = 2048
"""Columns that go through the model together: more gain nothing on a CPU, and fit its cache."""


@dataclass(frozen=True)
class _Taught:
    """A prompt that teaches: its place, columns of its prompt and of all its tokens, and its
    longest completion.
    """

    place: int
    width: int
    span: int
    longest: int


def gradients(policy: Policy, groups: Sequence[Experience | None]) -> Iterator[tuple[int, Tensor]]:
    """Gradient of the loss of each prompt that teaches anything, in no order.

    Parameters
    ----------
    policy:
        As it stands.
    groups:
        One prompt's judged completions each; None teaches nothing.

    Yields
    ------
    Place among the groups, and the gradient: float64 on the CPU, shape (d,), not clipped.
    """
    adapter, grpo = policy.adapter, policy.settings
    parameters = list(adapter.trainable.values())
    budget = min(grpo.tokens_per_batch, COLUMNS) if hookable(adapter.causal, parameters) else 1
    pad = int(adapter.base.tokenizer.pad_token_id)
    for taught in _batches(_taught(policy, groups), budget):
        shape = _shape(taught)
        chosen = [groups[one.place] for one in taught]
        batch = teaching_batch(chosen, shape, grpo, pad)
        rows = row_gradients(
            adapter.causal,
            parameters,
            lambda batch=batch: batch_loss(adapter.causal, batch, grpo),  # type: ignore[misc]
            len(taught),
        )
        yield from zip((one.place for one in taught), rows, strict=True)


def _taught(policy: Policy, groups: Sequence[Experience | None]) -> list[_Taught]:
    """Prompts that teach, those of few columns first."""
    found = []
    for place, group in enumerate(groups):
        lengths = taught_lengths(group, policy.settings) if group else []
        if group and lengths:
            width = len(group.rollout.prompts[0])
            found.append(_Taught(place, width, sum(lengths), max(lengths)))
    return sorted(found, key=lambda one: (one.width + one.span, one.place))


def _batches(taught: Sequence[_Taught], budget: int) -> Iterator[list[_Taught]]:
    """Put as many side by side as the budget of columns lets, at least one."""
    batch: list[_Taught] = []
    for one in taught:
        shape = _shape([*batch, one])
        if batch and (len(batch) + 1) * (shape.width + shape.span) > budget:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _shape(taught: Sequence[_Taught]) -> TeachingShape:
    """The least shape that holds them all."""
    return TeachingShape(
        max(one.width for one in taught),
        max(one.span for one in taught),
        max(one.longest for one in taught),
    )
