"""What a node promises in a run over a committee is on its disk, and it keeps to it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation.protocols.committee.convening.pledges import Pledge, Pledges, Toss
from fedgrpo.federation.protocols.committee.convening.seats import MOST_ATTEMPTS, DealingKey
from fedgrpo.federation.state.node_store import FolderShelf, NodeStore
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import ComponentKeys

KEYS = ComponentKeys({m: bytes([m]) * 32 for m in (0, 1, 3)})
ONE, OTHER = bytes(32), bytes([1]) * 32
FOUR, FIVE = "4" * 64, "5" * 64
"""Names of two seatings."""


def pledges(folder: Path, run: str = "a") -> Pledges:
    return Pledges(NodeStore(FolderShelf(folder)), run)


def test_attempts_only_go_up_in_a_round_whatever_they_are_for() -> None:
    pledge = Pledge().tossing(3, 1, FOUR)
    for attempt in (2, 3, 0, -1):
        with pytest.raises(ProtocolError, match="is not after attempt 3"):
            pledge.tossing(attempt, 1, FOUR)
        with pytest.raises(ProtocolError, match="is not after attempt 3"):
            pledge.computing(attempt, 1, FOUR)
    assert pledge.computing(1, 2, FOUR).attempt == 1


@pytest.mark.parametrize("attempt", [MOST_ATTEMPTS + 1, 2**62, 2**63 - 1])
def test_no_attempt_is_so_high_that_no_round_could_follow(attempt: int) -> None:
    with pytest.raises(ProtocolError, match=f"above {MOST_ATTEMPTS}"):
        Pledge().computing(attempt, 1, FOUR)
    last = Pledge().computing(MOST_ATTEMPTS, 1, FOUR)
    assert last.computing(1, 2, FOUR).round == 2


def test_rounds_only_go_forward() -> None:
    pledge = Pledge().computing(1, 5, FOUR)
    assert pledge.computing(2, 5, FOUR).round == 5
    with pytest.raises(ProtocolError, match="round 4 after round 5"):
        pledge.computing(2, 4, FOUR)
    with pytest.raises(ProtocolError, match="round 4 after round 5"):
        pledge.sitting(4, FOUR)


BEGINNINGS = (
    lambda pledge, seating: pledge.sitting(3, seating),
    lambda pledge, seating: pledge.tossing(pledge.attempt + 1, 3, seating),
    lambda pledge, seating: pledge.computing(pledge.attempt + 1, 3, seating),
)


@pytest.mark.slow
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 2))
def test_a_round_begun_under_one_seating_is_never_gone_on_with_under_another(
    before: list[int], after: int
) -> None:
    """Dealt, tossed or computed, in whatever order."""
    pledge = Pledge().computing(1, 2, FIVE)
    for step in before:
        with suppress(ProtocolError):  # Keys that have served are not tossed again.
            pledge = BEGINNINGS[step](pledge, FOUR)
    with pytest.raises(ProtocolError, match="round 3 was begun under seating 444"):
        BEGINNINGS[after](pledge, FIVE)
    assert pledge.sitting(4, FIVE).seating == FIVE


def test_a_round_is_computed_on_one_set_of_inputs_and_the_next_on_any() -> None:
    pledge = Pledge().computing(1, 1, FOUR).opening(ONE)
    assert pledge.computing(2, 1, FOUR).opening(ONE).inputs == ONE.hex()
    with pytest.raises(ProtocolError, match="computed on other inputs"):
        pledge.computing(2, 1, FOUR).opening(OTHER)
    assert pledge.computing(1, 2, FOUR).opening(OTHER).inputs == OTHER.hex()


def test_an_attempt_that_another_one_has_overtaken_goes_no_further() -> None:
    pledge = Pledge().computing(1, 1, FOUR)
    assert pledge.during(1, 1, FOUR) == pledge
    for later in (
        pledge.computing(2, 1, FOUR),
        pledge.computing(1, 2, FOUR),
        pledge.sitting(2, FIVE),
    ):
        with pytest.raises(ProtocolError, match="goes on after attempt"):
            later.during(1, 1, FOUR)


def test_keys_that_have_served_are_not_tossed_again_and_another_seating_has_its_own() -> None:
    tossed = Pledge().tossing(1, 1, FOUR).holding(KEYS)
    assert tossed.tossing(2, 1, FOUR).toss.keys == KEYS
    served = tossed.computing(2, 1, FOUR)
    with pytest.raises(ProtocolError, match="keys of seating 444444444444 that have served"):
        served.tossing(1, 2, FOUR)
    other = served.tossing(1, 2, FIVE)
    assert other.toss == Toss()
    both = other.holding(KEYS)
    assert both.ready == (FOUR, FIVE)
    assert both.computing(1, 3, FOUR).toss.keys == KEYS


def test_nobody_contributes_something_else_to_a_repeated_toss() -> None:
    told = {1: ONE, 2: ONE, 3: ONE}
    pledge = Pledge().tossing(1, 1, FOUR).revealing(told).tossing(2, 1, FOUR)
    assert pledge.revealing(told) == pledge
    with pytest.raises(ProtocolError, match="member 2 contributes something else"):
        pledge.revealing(told | {2: OTHER})


def test_a_node_is_known_by_the_key_that_it_was_first_seen_with() -> None:
    first, later = DealingKey(ONE, ONE, 7), DealingKey(ONE, OTHER, 7)
    assert Pledge().seeing({0: first}).seeing({0: later}).pins == {7: ONE.hex()}


def test_a_member_contributes_the_same_in_every_attempt_of_one_run(tmp_path: Path) -> None:
    first, again, elsewhere = (pledges(tmp_path / name) for name in ("0", "0", "1"))
    assert first.contribution == again.contribution
    runs = {first.contribution, elsewhere.contribution, pledges(tmp_path / "0", "b").contribution}
    assert len(runs) == 3


def test_a_pledge_survives_the_process_and_is_for_its_owner_only(tmp_path: Path) -> None:
    tossed = Pledge().tossing(1, 6, FOUR).revealing({1: ONE, 2: OTHER, 3: ONE}).holding(KEYS)
    made = tossed.computing(1, 7, FIVE).opening(ONE).seeing({0: DealingKey(ONE, OTHER, 2**63 - 1)})
    pledges(tmp_path).make(lambda _: made)
    assert pledges(tmp_path).read() == made
    assert pledges(tmp_path, "another run").read() == Pledge()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_refused_pledge_changes_nothing(tmp_path: Path) -> None:
    before = pledges(tmp_path).make(lambda pledge: pledge.computing(1, 1, FOUR).opening(ONE))
    with pytest.raises(ProtocolError):
        pledges(tmp_path).make(lambda pledge: pledge.opening(OTHER))
    assert pledges(tmp_path).read() == before


@pytest.mark.slow
def test_of_two_conflicting_inputs_at_once_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of a node that a server makes work side by side: 50 tries, one wins each."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "getpid", threading.get_ident)  # Drafts of files are named by it.
    for round in range(1, 51):
        pledges(tmp_path).make(lambda pledge, r=round: pledge.computing(1, r, FOUR))
        together, taken = threading.Barrier(2), list[bytes]()

        def take(inputs: bytes, together: threading.Barrier, taken: list[bytes]) -> None:
            mine = pledges(tmp_path)
            together.wait(10)
            try:
                mine.make(lambda pledge: pledge.opening(inputs))
            except ProtocolError:
                return
            taken.append(inputs)

        work = [
            threading.Thread(target=partial(take, inputs, together, taken))
            for inputs in (ONE, OTHER)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join(10)
        assert len(taken) == 1
        assert pledges(tmp_path).read().inputs == taken[0].hex()
