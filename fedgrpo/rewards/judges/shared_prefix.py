"""Which token sequences should share the forward pass of how they begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Neighbouring sequences that begin alike."""

    members: range
    """Their numbers."""
    shared: int
    """Tokens that all begin with. Every member has at least one more."""
    longest: int
    """Tokens of the longest member."""


def find_families(sequences: Sequence[Sequence[int]]) -> list[Family]:
    """Join neighbours as long as that saves tokens.

    n members with p shared tokens cost ``p + sum(length - p)`` tokens. One more, which leaves p' of
    the shared tokens, costs less inside than alone if and only if ``n p' > (n - 1) p``.

    Parameters
    ----------
    sequences:
        Non-empty lists of token ids, a judge's questions about one prompt side by side.

    Returns
    -------
    list of Family
        In order; together they have every sequence.
    """
    families: list[Family] = []
    for i, ids in enumerate(sequences):
        if families:
            last = families[-1]
            size = len(last.members)
            shared = _common(sequences[last.members[0]][: last.shared], ids[:-1])
            if size * shared > (size - 1) * last.shared:
                members = range(last.members.start, i + 1)
                families[-1] = Family(members, shared, max(last.longest, len(ids)))
                continue
        families.append(Family(range(i, i + 1), len(ids) - 1, len(ids)))
    return families


def batches(families: Sequence[Family], budget: int) -> Iterator[list[Family]]:
    """Put families of similar length together, as many as the budget of tokens allows.

    A row's whole length counts, since its cache holds that. A family is not split, so one that is
    larger than the budget makes a batch of its own.
    """
    batch: list[Family] = []
    rows = 0
    for family in sorted(families, key=lambda family: family.longest):
        if batch and family.longest * (rows + len(family.members)) > budget:
            yield batch
            batch, rows = [], 0
        batch.append(family)
        rows += len(family.members)
    if batch:
        yield batch


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens that both begin with."""
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))
