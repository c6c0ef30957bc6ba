"""One plan has one release, and different plans share nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedgrpo.federation import LocalGrid, make_client_app
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.state.node_store import (
    SECRET,
    Ask,
    FolderShelf,
    NodeStore,
    StateShelf,
)
from fedgrpo.federation.wire.codec import Header, decode, encode
from fedgrpo.federation.wire.messages import TRAIN, Tag, TrainOrder
from fedgrpo.federation.wire.plans import plan_hash, release_plan
from fedgrpo.ground.errors import PolicyError, RunError, TurnError
from fedgrpo.ledger import commitment
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import release_update
from fedgrpo.privacy.sampling import sampled_units
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Refusal
from fedgrpo.site.node_folder import LOCK, node_folder
from tests.federation.federation import DIMENSION, FakeClient, make_adapter, make_settings
from tests.federation.sites import FakeClock, code_of, make_site

RUN, PLAN = "ab" * 16, "cd" * 32
CLIENT: dict[str, Scalar] = {
    "privacy__unit": "client",
    "privacy__max_epsilon": 1e6,
    "rounds": 9,
    "federation__round_timeout_s": 600.0,
}


def store(folder: Path) -> NodeStore:
    return NodeStore(FolderShelf(folder))


class Site:
    """One deployed node, whose process can be started again and again."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings, self.trained = folder, settings, 0
        self.release = np.zeros(0)
        self.delta = np.full(DIMENSION, 0.1)
        self.config = make_site(folder)

    def ask(self, order: TrainOrder) -> Message:
        """Ask a node that remembers nothing but what is on its disk."""
        grid = LocalGrid(
            make_client_app(lambda *_: self, clock=FakeClock()),
            1,
            node_config=lambda _: self.config,
            run_config=self.settings.to_run_config(),
            run_id=order.header.run_id,
        )
        message = Message(encode(order.header, order), dst_node_id=1001, message_type=TRAIN)
        (reply,) = grid.send_and_receive([message])
        return reply

    def contribute(
        self, adapter: AdapterState, plan: Any, round: int, key: bytes, watch: Watch
    ) -> Any:
        """Count, as training would take minutes, and remember what leaves."""
        self.trained += 1
        client = FakeClient(0, lambda *_: self.delta, {})
        self.release = client.contribute(adapter, plan, round, key, watch)
        return self.release


def order(settings: Settings, **changed: Any) -> TrainOrder:
    asked = TrainOrder(Header(1, 1), RUN, make_adapter(), 1.0, settings.fingerprint())
    return replace(asked, **changed)


def tag(reply: Message) -> Tag:
    assert code_of(reply) is None
    return decode(Tag, reply.content)


def test_the_same_plan_is_the_same_release_and_is_not_computed_again(tmp_path: Path) -> None:
    settings = make_settings(**CLIENT)
    site = Site(tmp_path / "site", settings)
    first = tag(site.ask(order(settings)))
    site.delta = np.full(DIMENSION, 0.2)  # As on a GPU, where computing again gives another result.
    for run_id in (1, 2, 3):
        assert tag(site.ask(order(settings, header=Header(run_id, 1)))) == first
    assert site.trained == 1


def test_a_release_that_was_not_kept_is_computed_to_the_same_bits(tmp_path: Path) -> None:
    settings = make_settings(**CLIENT)
    site = Site(tmp_path / "site", settings)
    first, release = tag(site.ask(order(settings))), site.release
    for kept in (tmp_path / "site").rglob("release-*"):
        kept.unlink()
    assert tag(site.ask(order(settings))) == first
    assert site.trained == 2
    np.testing.assert_array_equal(site.release, release)


def test_what_cannot_be_computed_again_is_not_hidden_by_the_same_noise(tmp_path: Path) -> None:
    """Or the difference of both releases would be the difference of what they hide."""
    settings = make_settings(**CLIENT)
    site = Site(tmp_path / "site", settings)
    site.ask(order(settings))
    release = site.release
    for kept in (tmp_path / "site").rglob("release-*"):
        kept.unlink()
    site.delta = site.delta + 1e-9
    site.ask(order(settings))
    assert np.abs(site.release - release).min() > 0
    assert np.abs(site.release - release).max() > 0.5


def test_a_round_of_a_run_has_one_plan_and_rounds_go_forward(tmp_path: Path) -> None:
    settings = make_settings(**CLIENT, privacy__adaptive=True)
    site = Site(tmp_path / "site", settings)
    tag(site.ask(order(settings, header=Header(1, 4))))
    refused = {
        "another clipping norm": order(settings, header=Header(2, 4), clipping_norm=2.0),
        "another adapter": order(
            settings, header=Header(2, 4), adapter=make_adapter().moved(np.ones(DIMENSION))
        ),
        "an earlier round": order(settings, header=Header(2, 3)),
    }
    for asked in refused.values():
        assert code_of(site.ask(asked)) is Refusal.OUT_OF_TURN
    make_site(site.folder, rows=[{"prompt": "other", "answer": "c"}])
    assert code_of(site.ask(order(settings, header=Header(2, 4)))) is Refusal.OUT_OF_TURN
    assert site.trained == 1
    tag(site.ask(order(settings, header=Header(2, 5))))
    tag(site.ask(order(settings, header=Header(2, 4), run="ef" * 16)))
    assert site.trained == 3


def test_different_plans_share_nothing(tmp_path: Path) -> None:
    """Noise, coins, names of other runs and commitments, for plans that differ in one thing."""
    settings = make_settings(**CLIENT)
    other = make_settings(**CLIENT | {"privacy__noise_multiplier": 2.0})
    adapter, plan = make_adapter(), release_plan(settings, DIMENSION, 1.0)
    vector = adapter.vector.copy()
    vector[0] = np.nextafter(np.float32(0), np.float32(1))
    asked = order(settings)
    hashes = [
        plan_hash(settings, asked, plan, "prompts"),
        plan_hash(settings, replace(asked, header=Header(1, 2)), plan, "prompts"),
        plan_hash(settings, replace(asked, run="ef" * 16), plan, "prompts"),
        plan_hash(settings, replace(asked, adapter=adapter.moved(vector)), plan, "prompts"),
        plan_hash(settings, asked, replace(plan, clipping_norm=np.nextafter(1.0, 2)), "prompts"),
        plan_hash(other, asked, release_plan(other, DIMENSION, 1.0), "prompts"),
        plan_hash(settings, asked, plan, "other prompts"),
    ]
    node = store(tmp_path)
    keys = [node.key(Ask(RUN, 1, name)) for name in hashes]
    wide = release_plan(settings, 4000, 1.0)
    noises = np.array([release_update(np.zeros(4000), np.full(4, 0.5), wide, k) for k in keys])
    correlation = np.corrcoef(noises) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
    coins = np.zeros((len(keys), 4000))
    units = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(4000)]
    place = {name: i for i, name in enumerate(units)}
    for row, key in zip(coins, keys, strict=True):
        row[[place[name] for name in sampled_units(units, 0.5, key)]] = 1
    assert np.abs(np.corrcoef(coins) - np.eye(len(keys))).max() < 5 / np.sqrt(4000)
    tags = [node.tag(Ask(RUN, 1, name), noises[0]) for name in hashes]
    assert len({one.commitment for one in tags}) == len(tags)


def test_the_same_plan_on_two_nodes_shares_nothing(tmp_path: Path) -> None:
    first, second = store(tmp_path / "1"), store(tmp_path / "2")
    ask = Ask(RUN, 1, PLAN)
    assert first.key(ask) != second.key(ask)
    one, two = (node.tag(ask, np.zeros(3)) for node in (first, second))
    assert one.name != two.name
    assert one.commitment != two.commitment


def test_a_name_is_that_of_one_run(tmp_path: Path) -> None:
    node = store(tmp_path)
    names = [node.tag(Ask(run, r, f"{r}"), np.zeros(1)).name for run in ("a", "b") for r in (1, 2)]
    assert names[0] == names[1] != names[2] == names[3]


def test_a_commitment_says_nothing_without_its_salt_and_holds_with_it() -> None:
    release = np.zeros(2)
    salts = [bytes([number]) * 32 for number in range(2)]
    first, second = (commitment(salt, release.tobytes()) for salt in salts)
    assert first != second
    assert first == commitment(salts[0], release.tobytes())
    assert first != commitment(salts[0], (release + 1e-300).tobytes())


def test_only_the_nodes_owner_reads_what_it_keeps(tmp_path: Path) -> None:
    node, ask = store(tmp_path / "node"), Ask(RUN, 1, PLAN)
    node.keep(ask, np.ones(3))
    node.adapters(ask, np.ones(3, np.float32))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "node").iterdir()}
    assert set(modes.values()) == {0o600}
    assert {SECRET, f"release-{RUN}.safetensors"} < set(modes)


@pytest.mark.parametrize("in_folder", [True, False])
def test_what_is_kept_comes_back(tmp_path: Path, in_folder: bool) -> None:
    state = RecordDict()
    release = np.random.default_rng(0).normal(size=7)

    def node() -> NodeStore:
        return NodeStore(FolderShelf(tmp_path) if in_folder else StateShelf(state))

    ask, following = Ask(RUN, 1, PLAN), Ask(RUN, 2, "ef" * 32)
    assert node().released(ask) is None
    node().keep(ask, release)
    np.testing.assert_array_equal(node().released(ask), release)
    assert node().released(following) is None
    node().keep(following, release + 1)
    with pytest.raises(TurnError, match="released into round 2 of this run"):
        node().released(ask)
    assert node().key(ask) == node().key(ask)


@pytest.mark.parametrize("in_folder", [True, False])
def test_an_attacker_remembers_earlier_adapters_also_in_a_repeated_round(
    tmp_path: Path, in_folder: bool
) -> None:
    state = RecordDict()
    adapters = [np.full(2, number, np.float32) for number in range(4)]
    seen = []
    for round in (1, 1, 2, 2, 3):
        node = NodeStore(FolderShelf(tmp_path) if in_folder else StateShelf(state))
        met = node.adapters(Ask(RUN, round, PLAN), adapters[round])
        assert int(met.first[0]) == 1
        seen.append(None if met.before is None else int(met.before[0]))
    assert seen == [None, None, 1, 1, 2]


def test_an_attacker_remembers_its_first_round_also_in_a_repeated_round(tmp_path: Path) -> None:
    seen = []
    for round in (1, 1, 2, 3, 3):
        node = NodeStore(FolderShelf(tmp_path))
        first = node.first_release(Ask(RUN, round, PLAN), np.full(2, float(round)))
        seen.append(None if first is None else first.tolist())
    assert seen == [None, None, [1.0] * 2, [1.0] * 2, [1.0] * 2]


def test_where_a_node_keeps_its_state() -> None:
    settings = make_settings(run__directory="/runs/a")
    assert node_folder({"state": "/s", "prompts": "/d/p"}, settings) == Path("/s")
    assert node_folder({"prompts": "/d/p.jsonl"}, settings) == Path("/d/.p.jsonl.fedgrpo")
    assert node_folder({"partition-id": 3}, settings) == Path("/runs/a/nodes/3")
    assert node_folder({"partition-id": 3}, make_settings()) is None
    with pytest.raises(RunError, match="no folder to keep its secret in"):
        node_folder({}, settings)


def test_a_node_that_can_keep_nothing_releases_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    context = Context(1, 1, {"state": str(tmp_path / "file" / "folder")}, RecordDict(), {})
    with pytest.raises(RunError, match="cannot keep a secret") as caught:
        NodeStore.of(context, make_settings())
    assert str(tmp_path) not in caught.value.problem, "the problem is told to the server"


def test_a_run_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    settings = make_settings(**CLIENT)
    site = Site(tmp_path / "site", settings)
    reply = site.ask(order(settings, run="../" * 10 + "aa"))
    assert code_of(reply) is Refusal.MESSAGE


@pytest.mark.parametrize("before", [None, 0o755, 0o777, 0o700])
def test_the_folder_is_its_owners_alone(tmp_path: Path, before: int | None) -> None:
    folder = tmp_path / "node"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    store(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_one_process_holds_a_node_and_the_next_is_told_that_it_is_busy(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    with first.locked():
        with pytest.raises(PolicyError) as caught, second.locked():
            raise AssertionError("two hold it")
        assert caught.value.code == Refusal.BUSY
    with second.locked():
        pass
    assert (tmp_path / LOCK).stat().st_mode & 0o777 == 0o600


def test_what_fails_under_the_lock_is_not_taken_for_a_lock_and_gives_it_back(
    tmp_path: Path,
) -> None:
    node = store(tmp_path)
    with pytest.raises(KeyError), node.locked():
        raise KeyError
    with node.locked(wait=True):
        pass


def test_a_secret_has_a_fingerprint_that_does_not_give_it_away(tmp_path: Path) -> None:
    first, again, other = (store(tmp_path / name) for name in ("a", "a", "b"))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(first.fingerprint) == 32
    assert first.fingerprint not in (tmp_path / "a" / SECRET).read_bytes().hex()
