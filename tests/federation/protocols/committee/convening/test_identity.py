"""Where a member's keys come from, and who may be one."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from fedgrpo.federation.protocols.committee.convening.identity import (
    KEY_FILE,
    can_be_member,
    member_identity,
    own_seat,
)
from fedgrpo.federation.protocols.committee.convening.pledges import Pledge
from fedgrpo.federation.protocols.committee.convening.seats import Place
from fedgrpo.federation.state.node_store import FolderShelf, NodeStore
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import ComponentKeys, Identity
from fedgrpo.settings import Scalar, Settings


def context(**node_config: Scalar) -> Context:
    named = {name.replace("_", "-"): value for name, value in node_config.items()}
    return Context(1, 1, named, RecordDict(), {})


def test_a_simulated_member_has_the_same_keys_after_a_restart_and_no_others(tmp_path: Path) -> None:
    stores = [NodeStore(FolderShelf(tmp_path / name)) for name in ("0", "0", "1")]
    first, again, other = (member_identity(context(partition_id=0), store) for store in stores)
    assert first == again != other


def test_four_clients_that_attack_nobody_are_a_simulations_members() -> None:
    settings = Settings.from_mapping({"simulation": {"clients": 12, "byzantine": 2}})
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


def test_a_simulated_member_may_have_a_key_file_too(tmp_path: Path) -> None:
    node = context(**{"partition_id": 7, KEY_FILE: str(tmp_path / "key")})
    assert can_be_member(node, Settings())


def test_a_seat_says_what_the_member_has_promised_in_the_round() -> None:
    identity, name = Identity.new(), "4" * 64
    keys = ComponentKeys({m: bytes([m]) * 32 for m in (0, 1, 3)})
    pledge = Pledge().tossing(5, 2, name).holding(keys)
    now = own_seat(identity, pledge, Place("settings", "run", 2), 9)
    assert (now.attempt, now.ready, now.seating, now.node) == (5, (name,), name, 9)
    now.check(Place("settings", "run", 2))
    later = own_seat(identity, pledge, Place("settings", "run", 3), 9)
    assert (later.attempt, later.ready, later.seating) == (0, (name,), "")
