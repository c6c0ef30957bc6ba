"""The public parameters of one aggregation by the committee."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from fedgrpo.ground.errors import CohortError, SettingsError
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS
from fedgrpo.secure.committee.compute.planes import words_for
from fedgrpo.secure.committee.keys.noise import largest_noise, share_sigma
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings.protocols.committee.groups import LEFT, bucket_of, groups_of

RULES: dict[str, Callable[[int, int], int]] = {
    "trimmed_mean": lambda groups, trim: trim,
    "median": lambda groups, trim: (groups - 1) // 2,
    "norm_checked_mean": lambda groups, trim: 0,
}
"""``(groups, trim) -> k``: how many of the ``groups`` values are taken off at either end."""


@dataclass(frozen=True)
class Plan:
    """What is computed from the clients' integers; public, and the same at all members.

    The number of clients and what is trimmed are fixed before any input is seen. With them fixed,
    zeroing one client's vector of norm C moves the opened sum by at most C in L2, in whatever the
    other clients send: if one input of a trimmed sum moves by t, the sum moves by between 0 and t,
    as each order statistic moves the same way and all together by t. The same holds for sums of
    buckets.

    Parameters
    ----------
    clients:
        n, clients whose shares are held.
    dimension:
        d, coordinates.
    rule:
        ``trimmed_mean``; ``median``, the mean of the one or two middle values; or
        ``norm_checked_mean``, in which a vector of too large a norm counts as zero.
    trim:
        k, values taken off at either end of each coordinate by ``trimmed_mean``.
    bits:
        w, bits of a coordinate in offset binary: ``2^(w - 1)`` stands for zero.
    sigma:
        Scale of the joint noise in steps of the encoding; 0 for none.
    norm:
        L2 norm in steps above which ``norm_checked_mean`` may take a vector for zero. Others do not
        look at it.
    figures, figures_norm:
        Trailing coordinates whose norm is checked apart, against another bound in steps; 0 for
        none.
    circuit:
        Name in :data:`~fedgrpo.secure.committee.compute.circuits.trimming.CIRCUITS`.
    portions:
        Of the coordinates, which are computed one after the other, so that a member's memory holds
        one portion's steps. Nothing is opened before all are computed and confirmed.

    Raises
    ------
    CohortError
        If there are fewer than ``2 trim + 3`` clients, or buckets of clients.
    SettingsError
        If the rule or circuit is unknown or a number is out of range.
    PrivacyError
        If there is noise, but too little to be drawn exactly.
    """

    clients: int
    dimension: int
    rule: str = "trimmed_mean"
    trim: int = 0
    bits: int = 16
    sigma: float = 0.0
    norm: int = 0
    figures: int = 0
    figures_norm: int = 0
    circuit: str = "ripple"
    portions: int = 1

    def __post_init__(self) -> None:
        CIRCUITS.check(self.circuit)
        if self.rule not in RULES:
            raise SettingsError(
                f"the committee has no rule {self.rule!r}", cure=f"choose from {', '.join(RULES)}"
            )
        norm_given = self.norm > 0 or self.rule != "norm_checked_mean"
        apart = 0 <= self.figures < self.dimension and (not self.figures or self.figures_norm > 0)
        possible = self.dimension >= 1 and self.trim >= 0 and 1 <= self.bits <= 24 and apart
        possible &= self.portions >= 1
        if not (possible and norm_given):
            raise SettingsError(
                f"out of range: {self}",
                cure="give at least one coordinate, 1 to 24 bits, trim >= 0 and the norm to check",
            )
        needed = 2 * self.trimmed + (LEFT if self.rule == "trimmed_mean" else 1)
        if self.groups < max(needed, 2):
            raise CohortError(
                f"{self.rule} with trim = {self.trim} needs {max(needed, 2)} clients or buckets of "
                f"them, there are {self.groups}",
                cure="wait for more clients, or set robust.trim lower",
            )
        if self.sigma:
            share_sigma(self.sigma)

    @property
    def bucket(self) -> int:
        """Clients summed before trimming: 1, but more if a network for each would be too large."""
        return 1 if self.rule == "norm_checked_mean" else bucket_of(self.clients)

    @property
    def groups(self) -> int:
        """Values left to trim in each coordinate. Where buckets are not full, zeros fill them."""
        one_each = self.rule == "norm_checked_mean"
        return self.clients if one_each else groups_of(self.clients)

    @property
    def trimmed(self) -> int:
        """Values taken off at either end."""
        return RULES[self.rule](self.groups, self.trim)

    @property
    def kept(self) -> int:
        """Clients, counting zeros that fill buckets, whose values are summed: divide by it."""
        return self.bucket * (self.groups - 2 * self.trimmed)

    @property
    def words(self) -> int:
        """Words of one client's payload: planes by words, least significant plane first."""
        return self.bits * words_for(self.dimension)

    def words_of(self, planes: slice = slice(None)) -> list[slice]:
        """Words of each portion of the coordinates, or of those in some words, in order."""
        start, stop, _ = planes.indices(words_for(self.dimension))
        edges = [start + (stop - start) * at // self.portions for at in range(self.portions + 1)]
        return [slice(low, high) for low, high in pairwise(edges) if low < high]

    @property
    def output_bits(self) -> int:
        """Width of the opened sum, wide enough never to wrap.

        The noise never exceeds 12 scales of each of its four shares, 24 of itself.
        """
        noise = MEMBERS * largest_noise(share_sigma(self.sigma)) if self.sigma else 0
        return ((self.kept << (self.bits - 1)) + noise - 1).bit_length() + 1
