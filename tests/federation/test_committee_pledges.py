"""What a committee member promises is on its disk, and it keeps to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from fedgrpo.errors import ProtocolError
from fedgrpo.federation.committee_identity import (
    KEY_FILE,
    Pledge,
    Pledges,
    can_be_member,
    member_identity,
)
from fedgrpo.federation.node_store import FolderShelf, NodeStore
from fedgrpo.secure.committee import ComponentKeys, Identity
from fedgrpo.settings import Scalar, Settings

KEYS = ComponentKeys({m: bytes([m]) * 32 for m in (0, 1, 3)})
ONE, OTHER = bytes(32), bytes([1]) * 32


def pledges(folder: Path, run: str = "a") -> Pledges:
    return Pledges(NodeStore(FolderShelf(folder)), run)


def context(**node_config: Scalar) -> Context:
    named = {name.replace("_", "-"): value for name, value in node_config.items()}
    return Context(1, 1, named, RecordDict(), {})


def test_attempts_only_go_up_whatever_they_are_for() -> None:
    pledge = Pledge().tossing(3)
    for attempt in (2, 3):
        with pytest.raises(ProtocolError, match=f"attempt {attempt} is not after attempt 3"):
            pledge.tossing(attempt)
        with pytest.raises(ProtocolError, match=f"attempt {attempt} is not after attempt 3"):
            pledge.computing(attempt, 1)


def test_rounds_only_go_forward() -> None:
    pledge = Pledge().computing(1, 5)
    assert pledge.computing(2, 5).round == 5
    with pytest.raises(ProtocolError, match="round 4 after round 5"):
        pledge.computing(2, 4)


def test_a_round_is_computed_on_one_set_of_inputs_and_the_next_on_any() -> None:
    pledge = Pledge().computing(1, 1).opening(ONE)
    assert pledge.computing(2, 1).opening(ONE).inputs == ONE.hex()
    with pytest.raises(ProtocolError, match="computed on other inputs"):
        pledge.computing(2, 1).opening(OTHER)
    assert pledge.computing(2, 2).opening(OTHER).inputs == OTHER.hex()


def test_keys_that_have_served_are_not_tossed_again() -> None:
    tossed = replace(Pledge().tossing(1), keys=KEYS)
    assert tossed.tossing(2).keys == KEYS
    with pytest.raises(ProtocolError, match="keys after those of round 1"):
        tossed.computing(2, 1).tossing(3)


def test_nobody_contributes_something_else_to_a_repeated_toss() -> None:
    told = {1: ONE, 2: ONE, 3: ONE}
    pledge = Pledge().tossing(1).revealing(told).tossing(2)
    assert pledge.revealing(told) == pledge
    with pytest.raises(ProtocolError, match="member 2 contributes something else"):
        pledge.revealing(told | {2: OTHER})


def test_a_member_contributes_the_same_in_every_attempt_of_one_run(tmp_path: Path) -> None:
    first, again, elsewhere = (pledges(tmp_path / name) for name in ("0", "0", "1"))
    assert first.contribution == again.contribution
    runs = {first.contribution, elsewhere.contribution, pledges(tmp_path / "0", "b").contribution}
    assert len(runs) == 3


def test_a_pledge_survives_the_process_and_is_for_its_owner_only(tmp_path: Path) -> None:
    tossed = Pledge().tossing(1).revealing({1: ONE, 2: OTHER, 3: ONE})
    made = replace(tossed, keys=KEYS).computing(2, 7).opening(ONE)
    pledges(tmp_path).make(lambda _: made)
    assert pledges(tmp_path).read() == made
    assert pledges(tmp_path, "another run").read() == Pledge()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_refused_pledge_changes_nothing(tmp_path: Path) -> None:
    before = pledges(tmp_path).make(lambda pledge: pledge.computing(1, 1).opening(ONE))
    with pytest.raises(ProtocolError):
        pledges(tmp_path).make(lambda pledge: pledge.opening(OTHER))
    assert pledges(tmp_path).read() == before


def test_a_simulated_member_has_the_same_keys_after_a_restart_and_no_others(tmp_path: Path) -> None:
    stores = [NodeStore(FolderShelf(tmp_path / name)) for name in ("0", "0", "1")]
    first, again, other = (member_identity(context(partition_id=0), store) for store in stores)
    assert first == again != other


def test_four_holders_that_attack_nobody_are_a_simulations_members() -> None:
    settings = Settings.from_mapping({"simulation": {"holders": 12, "byzantine": 2}})
    able = [i for i in range(12) if can_be_member(context(partition_id=i), settings)]
    assert able == [2, 3, 4, 5]


def test_a_deployed_member_reads_its_keys_from_a_file_of_its_own(tmp_path: Path) -> None:
    store, path, identity = NodeStore(FolderShelf(tmp_path)), tmp_path / "key", Identity.new()
    node, settings = context(**{KEY_FILE: str(path)}), Settings()
    with pytest.raises(ProtocolError, match="cannot be read"):
        member_identity(node, store)
    path.write_bytes(identity.to_bytes())
    path.chmod(0o640)
    with pytest.raises(ProtocolError, match="others than its owner may read"):
        member_identity(node, store)
    path.chmod(0o600)
    assert can_be_member(node, settings)
    assert member_identity(node, store) == identity
    assert not can_be_member(context(), settings)
    with pytest.raises(ProtocolError, match="no keys as a committee member"):
        member_identity(context(), store)
