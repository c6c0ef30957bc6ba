"""Shapes of batches in which prompts are strangers: they follow from the settings and from each
prompt's own length, never from who else is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from fedgrpo.grpo.sampling import ROWS_PER_BATCH
from fedgrpo.settings import GRPOSettings

NARROWEST = 8
"""Columns of the narrowest prompts."""
MOST_ROWS = 32
"""Prompts that are ever side by side: a batch that is not full costs as much as one that is."""

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Widths that prompts and completions are filled up to, and how many prompts are side by side.

    Attributes
    ----------
    widths, lengths:
        Columns of prompts, and of completions when they are learned from, each increasing.
    group:
        Completions a prompt, G.
    rows:
        Prompts side by side at most, a power of two.
    tokens:
        Columns that go through the model together when it learns, unless one prompt has more. 0
        takes one prompt's gradient at a time.
    """

    widths: tuple[int, ...]
    lengths: tuple[int, ...]
    group: int
    rows: int
    tokens: int

    @classmethod
    def of(cls, grpo: GRPOSettings, longest: int, *, several: bool = True) -> Layout:
        """Shapes for prompts of up to ``longest`` tokens; ``several`` says whether gradients of
        several prompts can be taken at once.
        """
        # Half the expected number: the last batch of a width is half empty on average.
        rows = _power_of_two(min(MOST_ROWS, max(1, grpo.prompts_per_step // 2)))
        return cls(
            _steps(min(NARROWEST, longest), longest),
            _steps(NARROWEST, grpo.max_completion_length),
            grpo.group_size,
            rows,
            grpo.tokens_per_batch if several else 0,
        )

    def alone(self) -> Layout:
        """The same with one prompt a batch."""
        return replace(self, rows=1)

    def width(self, tokens: int) -> int:
        """Columns of a prompt of so many tokens."""
        return next(width for width in self.widths if width >= tokens)

    def length(self, tokens: int) -> int:
        """Columns of completions of at most so many tokens."""
        return next(length for length in self.lengths if length >= tokens)

    def sampling_rows(self) -> int:
        """Prompts side by side when completions are sampled."""
        return _power_of_two(max(1, min(self.rows, ROWS_PER_BATCH // self.group)))

    def teaching_rows(self, width: int, length: int) -> int:
        """Prompts side by side when a gradient is taken."""
        fitting = self.tokens // (width + self.group * length)
        return _power_of_two(max(1, min(self.rows, fitting)))

    def most_batches(self, prompts: int) -> tuple[int, int]:
        """Batches of sampling, and of learning, that so many prompts can need.

        Each kind of shape may leave one batch that is not full.
        """
        sampling = -(-prompts // self.sampling_rows()) + len(self.widths)
        teaching = -(-prompts // self.least_teaching_rows()) + self.kinds
        return min(prompts, sampling), min(prompts, teaching)

    def least_teaching_rows(self) -> int:
        """Prompts side by side in the largest shape."""
        return self.teaching_rows(self.widths[-1], self.lengths[-1])

    @property
    def kinds(self) -> int:
        """Shapes that there are for learning."""
        return len(self.widths) * len(self.lengths)


class Guard(Protocol):
    """What the engine is told of time and crashes: see :class:`fedgrpo.federation.watch.Watch`."""

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

    def in_time(self, items: Sequence[T], left: Callable[[], float]) -> Iterator[tuple[list[T], int]]:
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


def certain(done: int, rows: int, kinds: int) -> int:
    """Items at the front of the order that ``done`` batches of a :class:`Schedule` always cover.

    Proof: let item j be the first that is not done. Every batch began with an item before j, and of
    each kind at most one holds an item behind j or is not full: the last of its kind. All others
    hold ``rows`` items before j, so j >= (done - kinds) rows. One item more in the order moves
    this many by none, and so pushes out at most one other.
    """
    return max(0, done - kinds) * rows


def _steps(first: int, last: int) -> tuple[int, ...]:
    """Doubling from ``first``, up to ``last``."""
    found = [min(first, last)]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return tuple(found)


def _power_of_two(most: int) -> int:
    """Largest power of two that is at most ``most``."""
    return 1 << (most.bit_length() - 1)
