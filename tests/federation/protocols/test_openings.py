"""Over all attempts at a round, no two different sums share a client."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.protocols.openings import Openings, Sum
from fedgrpo.federation.server.checkpoint import FILE
from fedgrpo.report.writer import RunWriter
from tests.federation.federation import Federation, make_settings
from tests.federation.kills import KilledError

KEY = bytes(range(32))
ATTEMPT = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=2).flatmap(
    lambda clients: st.integers(1, len(clients)).map(
        lambda cut: [frozenset(part) for part in (clients[:cut], clients[cut:]) if part]
    )
)


@given(st.lists(ATTEMPT, min_size=1, max_size=6))
def test_opened_sums_are_the_same_or_share_nobody(attempts: list[list[Sum]]) -> None:
    openings, opened = Openings(None), set[Sum]()
    for sums in attempts:
        admitted = openings.admit(7, sums)
        opened |= {one for one, fits in zip(sums, admitted, strict=True) if fits}
    assert all(first.isdisjoint(second) for first, second in combinations(opened, 2))
    assert set(attempts[0]) <= opened


def test_what_was_opened_is_remembered_after_a_kill_and_forgotten_after_the_round(
    tmp_path: Path,
) -> None:
    path, whole, less = tmp_path / "opened.json", frozenset("abc"), frozenset("ab")
    assert Openings(path).admit(1, [whole, frozenset("def")]) == [True, True]
    assert path.stat().st_mode & 0o777 == 0o600
    assert Openings(path).admit(1, [less, frozenset("def")]) == [False, True]
    assert Openings(path).admit(1, [whole]) == [True]
    assert Openings(path).admit(2, [less]) == [True]


def test_it_is_on_disk_before_anything_is_opened(tmp_path: Path) -> None:
    """A kill between the record and the question leaves a sum that may have been opened."""
    openings = Openings(tmp_path / "opened.json")
    assert openings.admit(3, [frozenset("abc")]) == [True]
    assert Openings(tmp_path / "opened.json").admit(3, [frozenset("abd")]) == [False]


@pytest.mark.parametrize("drops_out", [False, True])
def test_a_client_that_drops_out_of_a_repeated_round_is_not_found_by_subtraction(
    tmp_path: Path, drops_out: bool
) -> None:
    settings = make_settings(
        robust__rule="mean", robust__trim=0, federation__min_clients=3, rounds=2
    )
    kills = iter([False, False, True])

    def strategy() -> FedGRPO:
        return FedGRPO(settings, writer=RunWriter(tmp_path), checkpoint=tmp_path / FILE, secret=KEY)

    def kill(stage: str, node: int) -> bool:
        if stage == "unmask" and next(kills, False):
            raise KilledError  # Two of three have answered: the server knows the sum.
        return False

    first = Federation(settings, 3, drop=kill)
    with pytest.raises(KilledError):
        first.run(strategy())
    again = Federation(
        settings, 3, drop=lambda stage, node: drops_out and (stage, node) == ("mask", 1003)
    )
    # The nodes are the same ones: their names come from secrets that they have kept.
    for node, context in again.grid.contexts.items():
        kept = first.grid.contexts[node].state
        context.state.update({name: kept[name] for name in kept if "store" in name})
    again.run(strategy())
    rows = RunWriter(tmp_path).rows()
    assert rows[1].applied is not drops_out
    assert ("another sum with some of its members was opened" in rows[1].reason) is drops_out
    assert rows[2].applied, "the next round is another release"
