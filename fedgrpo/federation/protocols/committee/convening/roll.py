"""Which four of the listed members sit in a round, as the server knows the list.

Adversary: clients that pose as members (their seats are not proven, so they are not here) and one
malicious member, which can end rounds in which it sits, and have itself or one other member put
behind the rest of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import combinations

from fedgrpo.federation.protocols.committee.convening.messages import Dealer
from fedgrpo.federation.protocols.committee.convening.plan import (
    listed_members,
    seating_of,
    write_keys,
)
from fedgrpo.federation.protocols.committee.convening.seats import Seat
from fedgrpo.ground.errors import CohortError
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings


class CommitteeError(CohortError):
    """The committee ended a round without a result.

    Parameters
    ----------
    released:
        Whether somebody may have the result all the same: then the round has cost its epsilon.
    """

    def __init__(self, problem: str, *, cure: str = "", released: bool = False) -> None:
        super().__init__(problem, cure=cure)
        self.released = released


@dataclass
class Roll:
    """The listed members, and what became of each."""

    settings: Settings
    listed: tuple[MemberKeys, ...] = ()
    """In the settings' order; in a simulation that lists none, the first four that offered
    themselves."""
    there: dict[MemberKeys, int] = field(default_factory=dict)
    """Node of each that has finished in the last round, and was not lost since."""
    behind: set[MemberKeys] = field(default_factory=set)
    """Those for whose sake a round has ended. They sit again if there are no four others, and are
    forgiven when they have completed a round."""

    def seat(self, dealers: Mapping[int, Dealer]) -> tuple[Seat, ...]:
        """Seat the first four members that are there, in the list's order.

        A round that has begun under four who are all there goes on under them, and nobody who has
        begun it under four others sits in it. Raises CommitteeError if there are fewer than four,
        or the round has begun under others.

        Parameters
        ----------
        dealers:
            Of the round by node, their seats proven.
        """
        seen: dict[MemberKeys, Seat] = {}
        for seat in filter(None, (dealer.seat for dealer in dealers.values())):
            seen.setdefault(seat.keys, seat)
        self._list(seen)
        able = [keys for keys in self.listed if keys in seen]
        self.there = {keys: seen[keys].node for keys in able}
        if len(able) < MEMBERS:
            raise self._too_few(able)
        order = sorted(able, key=lambda keys: keys in self.behind)
        return self._first(order, seen)

    def leave(self, nodes: Set[int]) -> None:
        """Take note that nodes do not answer."""
        self.there = {keys: node for keys, node in self.there.items() if node not in nodes}

    def blame(self, members: Iterable[MemberKeys]) -> None:
        """Put members behind the others that are listed."""
        self.behind |= set(members)

    def forgive(self, members: Iterable[MemberKeys]) -> None:
        """Let members sit in the list's order again."""
        self.behind -= set(members)

    def _list(self, seen: Mapping[MemberKeys, Seat]) -> None:
        named = tuple(listed_members(self.settings))
        if not self.listed and (named or len(seen) >= MEMBERS):
            self.listed = named or tuple(sorted(seen, key=write_keys)[:MEMBERS])

    def _first(self, order: list[MemberKeys], seen: Mapping[MemberKeys, Seat]) -> tuple[Seat, ...]:
        fresh = None
        for four in combinations(order, MEMBERS):
            seats = self._in_order(seen, four)
            begun = {seat.seating for seat in seats} - {""}
            if begun == {seating_of(self.settings, tuple(seat.keys for seat in seats))}:
                return seats
            fresh = fresh or (None if begun else seats)
        if fresh is None:
            raise CommitteeError(
                "the round was begun by four members who are not all there",
                cure="the next round goes on with those who are",
                released=True,
            )
        return fresh

    def _in_order(
        self, seen: Mapping[MemberKeys, Seat], four: Iterable[MemberKeys]
    ) -> tuple[Seat, ...]:
        return tuple(seen[keys] for keys in sorted(four, key=self.listed.index))

    def _too_few(self, able: list[MemberKeys]) -> CommitteeError:
        missing = [str(m) for m, keys in enumerate(self.listed) if keys not in able]
        return CommitteeError(
            f"committee members {', '.join(missing) or 'of the run'} have not been seen: "
            f"{len(able)} are there, {MEMBERS} are needed",
            cure="start their nodes with the keys that aggregation.committee lists",
        )
