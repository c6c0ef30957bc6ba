"""Shapes of batches in which prompts are strangers: they follow from the settings and from each
prompt's own length, never from who else is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

from fedgrpo.grpo.isolated.slots import SamplingShape
from fedgrpo.settings import GRPOSettings

NARROWEST = 16
"""Columns of the narrowest prompts and of the shortest completions."""
SHORTEST = 64
"""Columns of the shortest row of a prompt with all its completions."""
CPU_COLUMNS, CPU_SLOTS = 512, 64
"""Columns, and completions in decoding, from which on more of them at once gain nothing on a CPU:
what a batch is filled up with would only cost.
"""
CPU_CACHE, MOST_CPU_SLOTS = 4096, 256
"""Columns of all slots together up to which more slots pay all the same: where prompts and
completions are that short, a step is Python's time rather than the products'.
"""
GPU_SLOTS = 1024

T = TypeVar("T")


@dataclass(frozen=True)
class TeachingShape:
    """Shape of a row when it is learned from: columns of the prompt, of all its completions' tokens
    behind each other, and of the longest completion.
    """

    width: int
    span: int
    length: int


@dataclass(frozen=True)
class Layout:
    """What prompts and completions are filled up to, and how many are side by side.

    Attributes
    ----------
    widths, lengths:
        Columns of prompts and of completions, each increasing.
    rows:
        Columns of a prompt with all its completions, increasing.
    columns:
        That go through the model together, unless one prompt has more.
    slots:
        Completions that are decoded together.
    several:
        Whether gradients of several prompts are taken at once.
    """

    widths: tuple[int, ...]
    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    columns: int
    slots: int
    several: bool

    @classmethod
    def of(
        cls, grpo: GRPOSettings, longest: int, *, cpu: bool = True, several: bool = True
    ) -> Layout:
        """Shapes for prompts of up to ``longest`` tokens."""
        length, group = grpo.max_completion_length, grpo.group_size
        widths = _steps(NARROWEST, longest)
        rows = _steps(SHORTEST, widths[-1] + group * length)
        columns = min(grpo.tokens_per_batch, CPU_COLUMNS if cpu else grpo.tokens_per_batch)
        most = _cpu_slots(widths[-1] + length) if cpu else GPU_SLOTS
        slots = _power_of_two(min(most, max(1, grpo.prompts_per_step * group // 2)))
        # Each halving of a row's columns would make one more kind of batch that is seldom full.
        return cls(widths, _steps(NARROWEST, length), _halved(rows), columns, slots, several)

    def alone(self) -> Layout:
        """The same with one prompt, and one completion, at a time."""
        return replace(self, columns=1, slots=1)

    def sampling(self, tokens: int) -> SamplingShape:
        """Shape in which a prompt of so many tokens is sampled for."""
        width = _fitting(self.widths, tokens)
        return SamplingShape(width, self._side(width), self.slots)

    def teaching(self, tokens: int, lengths: Sequence[int]) -> TeachingShape:
        """Shape of a prompt of so many tokens with completions of these lengths."""
        width = _fitting(self.widths, tokens)
        columns = _fitting(self.rows, width + sum(lengths))
        return TeachingShape(width, columns - width, _fitting(self.lengths, max(lengths)))

    def side(self, shape: TeachingShape) -> int:
        """Prompts side by side in this shape."""
        return self._side(shape.width + shape.span) if self.several else 1

    def teaching_shapes(self) -> list[TeachingShape]:
        """All shapes that there are for learning."""
        return [
            TeachingShape(width, columns - width, length)
            for width in self.widths
            for columns in self.rows
            for length in self.lengths
            if columns > width
        ]

    def _side(self, columns: int) -> int:
        return max(1, self.columns // columns)


class Guard(Protocol):
    """What the engine is told of time and crashes: see
    :class:`fedgrpo.federation.node.clients.watch.Watch`.
    """

    suspects: frozenset[str]
    dead: frozenset[str]
    mishaps: Counter[str]

    def left(self) -> float:
        """Seconds until the deadline."""

    def begin(self, names: Sequence[str]) -> None:
        """A batch of these units is about to be computed."""

    def end(self) -> None:
        """It is done."""


@dataclass(frozen=True)
class Schedule(Generic[T]):
    """How items of an order of their own go into batches.

    Attributes
    ----------
    kind:
        What items of one batch have in common.
    side:
        Items of a batch, at most.
    least, kinds:
        Least of ``side``, and how many kinds there may be at most: public figures, whatever the
        items are.
    """

    kind: Callable[[T], Hashable]
    side: Callable[[T], int]
    least: int
    kinds: int

    def in_time(
        self, items: Sequence[T], left: Callable[[], float]
    ) -> Iterator[tuple[list[T], int]]:
        """Go through items in batches until all are done or no seconds are ``left``.

        The next batch is always that of the first item that has none yet, and takes the next items
        of its kind.

        Yields
        ------
        A batch, and how many items at the front of the order are done for certain once it is: all
        of them with the last batch.
        """
        waiting, done = list(items), 0
        while waiting and left() > 0:
            kind = self.kind(waiting[0])
            alike = [i for i, item in enumerate(waiting) if self.kind(item) == kind]
            taken = set(alike[: self.side(waiting[0])])
            batch = [item for i, item in enumerate(waiting) if i in taken]
            waiting = [item for i, item in enumerate(waiting) if i not in taken]
            done += 1
            yield batch, certain(done, self.least, self.kinds) if waiting else len(items)


def suspects_last(
    ordinary: Schedule[T],
    items: Sequence[T],
    suspect: Callable[[T], str],
    left: Callable[[], float],
) -> Iterator[tuple[list[T], int]]:
    """Go through ordinary items first, then through those for which ``suspect`` has a name, of one
    name at a time: what takes longer there takes no time from the others.

    Parameters
    ----------
    ordinary:
        Of the items without a name.
    items:
        Those with a name behind all others.
    suspect:
        Name of who may not be beside others; empty for most.
    left:
        As for :meth:`Schedule.in_time`, whose batches and figures this yields.
    """
    front = [item for item in items if not suspect(item)]
    yield from ordinary.in_time(front, left)
    singly = replace(
        ordinary, kind=lambda item: (ordinary.kind(item), suspect(item)), least=1, kinds=0
    )
    for batch, sure in singly.in_time(items[len(front) :], left):
        yield batch, len(front) + sure


def certain(done: int, rows: int, kinds: int) -> int:
    """Items at the front of the order that ``done`` batches of a :class:`Schedule` always cover.

    Proof: each batch holds the first item that was left, so ``done`` items at least. And let item j
    be the first that is not done: every batch began before it, and of each kind at most one holds
    an item behind j or is not full, the last of its kind. All others hold ``rows`` items before j,
    so j >= (done - kinds) rows. One item more in the order changes none of these figures, so it
    pushes out at most one other.
    """
    return max(done, (done - kinds) * rows)


def step_above(tokens: int) -> int:
    """Columns of the narrowest prompts that take so many tokens, where nothing bounds them."""
    return max(NARROWEST, 1 << (tokens - 1).bit_length())


def _steps(first: int, last: int) -> tuple[int, ...]:
    """Doubling from ``first``, up to ``last``."""
    found = [min(first, last)]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return tuple(found)


def _halved(steps: tuple[int, ...]) -> tuple[int, ...]:
    """The same with a step half-way between each two."""
    between = [(a + b) // 2 for a, b in pairwise(steps)]
    return tuple(sorted({*steps, *between}))


def _cpu_slots(columns: int) -> int:
    """Completions that are decoded together on a CPU, of so many columns each."""
    return min(MOST_CPU_SLOTS, max(CPU_SLOTS, CPU_CACHE // columns))


def _fitting(steps: tuple[int, ...], wanted: int) -> int:
    return next(step for step in steps if step >= wanted)


def _power_of_two(most: int) -> int:
    """Largest power of two that is at most ``most``."""
    return 1 << (most.bit_length() - 1)
