"""Which four of the list sit, and whom an ended attempt puts behind the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation.protocols.committee.convening.messages import Dealer, Progress
from fedgrpo.federation.protocols.committee.convening.plan import seating_of, write_keys
from fedgrpo.federation.protocols.committee.convening.roll import CommitteeError, Roll
from fedgrpo.federation.protocols.committee.convening.seats import DealingKey, Seat
from fedgrpo.federation.protocols.committee.sitting import Ended
from fedgrpo.secure.committee import MemberKeys
from tests.federation.federation import make_settings
from tests.federation.protocols.committee.rounds import COMMITTEE

KEYS = [MemberKeys(bytes([m]) * 32, bytes([64 + m]) * 32) for m in range(7)]
SETTINGS = make_settings(
    **COMMITTEE, aggregation__committee=",".join(write_keys(keys).hex() for keys in KEYS)
)


def dealers(*there: int, begun: dict[int, str] | None = None) -> dict[int, Dealer]:
    begun = begun or {}
    return {
        100 + m: Dealer(
            DealingKey(bytes(32), bytes([m]) * 32, 100 + m),
            Seat(KEYS[m], 100 + m, seating=begun.get(m, "")),
        )
        for m in there
    }


def four(*places: int) -> str:
    return seating_of(SETTINGS, tuple(KEYS[m] for m in places))


def sitting(roll: Roll, found: dict[int, Dealer]) -> list[int]:
    return [KEYS.index(seat.keys) for seat in roll.seat(found)]


@given(st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)))
def test_the_first_four_that_are_there_sit_in_order_and_those_behind_only_if_they_must(
    there: set[int], behind: set[int]
) -> None:
    roll = Roll(SETTINGS)
    roll.blame(KEYS[m] for m in behind)
    if len(there) < 4:
        with pytest.raises(CommitteeError, match=f"{len(there)} are there, 4 are needed"):
            roll.seat(dealers(*there))
        return
    expected = sorted([*sorted(there - behind), *sorted(there & behind)][:4])
    assert sitting(roll, dealers(*sorted(there, reverse=True))) == expected
    roll.forgive(KEYS)
    assert sitting(roll, dealers(*there)) == sorted(there)[:4]


def test_a_round_goes_on_under_those_who_began_it() -> None:
    name = four(1, 2, 3, 4)
    begun = dict.fromkeys((1, 2, 3, 4), name)
    assert sitting(Roll(SETTINGS), dealers(0, 1, 2, 3, 4, begun=begun)) == [1, 2, 3, 4]
    # One of them had not heard of it yet.
    assert sitting(Roll(SETTINGS), dealers(0, 1, 2, 3, 4, begun={1: name})) == [1, 2, 3, 4]


def test_a_round_that_others_began_is_given_up_and_charged_unless_four_had_no_part_in_it() -> None:
    begun = dict.fromkeys((0, 1, 2), four(0, 1, 2, 3))
    with pytest.raises(CommitteeError, match="begun by four members") as caught:
        Roll(SETTINGS).seat(dealers(0, 1, 2, 4, 5, begun=begun))
    assert caught.value.released
    assert sitting(Roll(SETTINGS), dealers(0, 1, 2, 3, 4, 5, 6, begun={0: "f" * 64})) == [
        1,
        2,
        3,
        4,
    ]


def test_members_are_where_they_were_last_seen() -> None:
    roll = Roll(SETTINGS)
    roll.seat(dealers(0, 1, 2, 3, 4))
    roll.leave({101})
    assert {KEYS.index(keys) for keys in roll.there} == {0, 2, 3, 4}
    roll.seat(dealers(0, 1, 2, 3))
    assert {KEYS.index(keys) for keys in roll.there} == {0, 1, 2, 3}


def ended(reports: dict[int, int] | None = None, *, silent: tuple[int, ...] = ()) -> Ended:
    told = {m: Progress(done=False, lost=lost) for m, lost in (reports or {}).items()}
    return Ended(dict.fromkeys(silent, "no reply"), frozenset(silent), told, {})


@pytest.mark.parametrize(
    ("end", "behind"),
    [
        (ended(silent=(2,)), {2}),
        (ended({0: 2, 1: 2, 3: 2}, silent=(2,)), {2}),
        (ended({0: 2, 1: 2, 3: 2}), {2}),
        (ended({0: 2}, silent=(2,)), {2}),
        # One slanders another that is there: one of the two lies.
        (ended({0: 2}), {0, 2}),
        (ended({0: 2, 1: 2}), {2}),
        (ended(), set()),
    ],
)
def test_who_is_put_behind_is_who_was_lost_or_says_so_alone(end: Any, behind: set[int]) -> None:
    assert end.to_blame == behind
