"""Rounds over a committee whose members are linked by real TLS connections on loopback."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.protocols.committee import member as committee_member
from fedgrpo.federation.protocols.committee.convening.identity import KEY_FILE
from fedgrpo.federation.protocols.committee.convening.messages import Progress
from fedgrpo.federation.protocols.committee.member import LISTEN
from fedgrpo.federation.simulation.local_grid import NODE_UNAVAILABLE, stage_of
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.wire.codec import decode
from fedgrpo.secure.committee import Identity
from tests.federation.federation import (
    DIMENSION,
    FakeClient,
    Federation,
    make_settings,
    small_delta,
    vector_of,
)
from tests.federation.kills import KilledError
from tests.federation.protocols.committee.rounds import COMMITTEE, of_encoded
from tests.federation.sites import EVERYTHING

pytestmark = pytest.mark.slow

NODES = 9
PATIENCE_S = 20.0
"""Third of the time for a reply: what a member waits for one that never comes."""
IMPATIENT = {"federation__reply_timeout_s": 12.0}
"""For rounds in which one does not: 4 s."""


class ParallelGrid(LocalGrid):
    """Runs the members of one push side by side: each waits for the others within one message."""

    def push_messages(self, messages):
        messages = list(messages)
        workers = len(messages) if all(stage_of(m) == "committee" for m in messages) else 1
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(self._deliver, messages))

    def _run_app(self, message, node):
        try:
            return super()._run_app(message, node)
        except KilledError:
            return Message(Error(NODE_UNAVAILABLE, "Node unavailable"), reply_to=message)


@dataclass
class Direct(Federation):
    """Nodes as they are deployed, the first four of which are members with keys in files."""

    folder: Path = field(kw_only=True)
    listens: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        agreed = [name[:128] for name in self.settings.aggregation.committee]
        policy = f"committee = {agreed}\n{EVERYTHING}"
        (self.folder / "policy.toml").write_text(policy)
        self.grid = ParallelGrid(
            make_client_app(lambda settings, config: self._site(str(config["state"]))),
            self.nodes,
            node_config=self._config,
            run_config=self.settings.to_run_config(),
            drop=self.drop,
            tamper=self.tamper,
        )

    def _site(self, state: str) -> FakeClient:
        return FakeClient(int(Path(state).name), self.delta, self.releases)

    def _config(self, place: int) -> dict[str, str]:
        policy = str(self.folder / "policy.toml")
        config = {"state": str(self.folder / str(place)), "policy": policy}
        if place in range(4):
            config[KEY_FILE] = str(key_file(self.folder, place))
        if place in self.listens:
            config[LISTEN] = self.listens[place]
        return config


def exchange_at(place, places):
    """The ``place``-th exchange of a computation, from its end if negative, or a share of it."""
    before, last = places
    if place < 0:
        return last + 1 + place
    return before + (place if isinstance(place, int) else round(place * (last - before)))


def round_of(reply):
    return reply.content["fedgrpo"]["round"]


class Watched(FedGRPO):
    """Keeps why each round was skipped, and how many had been charged by then."""

    def __init__(self, settings):
        super().__init__(settings, callbacks=[self])
        self.seen = []

    def on_round(self, row):
        if row.round:
            self.seen.append((row.reason, self.state.progress.charged))


def key_file(folder, place):
    return folder / f"member-{place}.key"


def name_members(folder):
    """Keys in files, and four free ports: what a scenario file names the members by."""
    named = []
    for place, port in enumerate(free_ports(4)):
        identity = Identity.new()
        key_file(folder, place).touch(mode=0o600)
        key_file(folder, place).write_bytes(identity.to_bytes())
        keys = identity.public
        named.append(f"{(keys.signing + keys.agreement).hex()}@127.0.0.1:{port}")
    return named


@pytest.fixture
def addresses(tmp_path):
    return name_members(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def settings_of(addresses, **changed):
    named = {"aggregation__committee": ",".join(addresses)}
    patience = {"federation__reply_timeout_s": 3 * PATIENCE_S}
    return make_settings(**COMMITTEE | named | patience | changed)


class Killing:
    """Links of the real kind, that die under one member at its ``at``-th exchange.

    Its last messages still go out to ``tells``.
    """

    def __init__(self, patches, member=3, at=10**9, tells=()):
        self._real = committee_member.connect
        self.member, self.at, self.tells, self.begun, self.sessions = member, at, tells, 0, []
        patches.setattr(committee_member, "connect", self.connect)

    @contextmanager
    def connect(self, party, listener, timeout_s):
        if party.index != self.member:
            with self._real(party, listener, timeout_s) as links:
                yield links
            return
        self.sessions.append(self.begun)
        with self._real(party, listener, timeout_s) as links:
            exchange = links.exchange
            links.exchange = lambda step: self._exchange(links, exchange, step)
            yield links

    def _exchange(self, links, exchange, step):
        self.begun += 1
        if self.begun < self.at:
            return exchange(step)
        for peer in self.tells:
            links._runner.run(links._send(peer, step.outgoing[peer]))
        for stream in links._streams:
            stream.writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        raise KilledError


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A member's exchanges before it computes a round's first, and up to the last."""
    folder = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patches:
        count = Killing(patches)
        Direct(settings_of(name_members(folder)), NODES, folder=folder).run()
    return count.sessions[1], count.begun


def test_members_linked_by_tls_open_the_exact_trimmed_mean_in_every_round(tmp_path, addresses):
    federation = Direct(settings_of(addresses, rounds=2), NODES, folder=tmp_path)
    strategy = federation.run()
    assert strategy.history[-1].members == 4
    assert strategy.state.progress.charged == 2
    opened = strategy._round.outcome.aggregate.delta.astype(np.float32)
    assert np.array_equal(opened, of_encoded(federation, range(NODES), round=2))
    before = vector_of(strategy) - opened
    assert np.allclose(before, of_encoded(federation, range(NODES)), atol=1e-7)
    # One message to toss, one a round: nothing that members tell each other passes the server.
    asked = [node for stage, node in federation.grid.sent if stage == "committee"]
    assert asked == [1001, 1002, 1003, 1004] * 3


def test_an_attacker_and_dropouts_cost_their_places_only(tmp_path, addresses):
    def delta(partition, round):
        return np.full(DIMENSION, 1e3) if partition == 4 else small_delta(partition, round)

    federation = Direct(
        settings_of(addresses, robust__trim=1),
        NODES,
        delta,
        drop=lambda stage, node: (stage, node) in {("train", 1009), ("deal", 1008)},
        folder=tmp_path,
    )
    strategy = federation.run()
    outcome = strategy.history[-1]
    assert (outcome.finished, outcome.dropped, outcome.reason) == (7, 2, "")
    assert np.array_equal(vector_of(strategy), of_encoded(federation, range(7), trim=1))
    honest = np.stack([delta(partition, 1) for partition in (0, 1, 2, 3, 5, 6)])
    assert (vector_of(strategy) <= honest.max(axis=0) + 1e-3).all()


@pytest.mark.parametrize("place", [1, 2, 3, 0.5])
def test_a_member_killed_in_mid_round_ends_it_unopened_and_free_of_charge(
    place, tmp_path, addresses, places, monkeypatch
):
    Killing(monkeypatch, at=exchange_at(place, places))
    begun = time.monotonic()
    strategy = Direct(settings_of(addresses), NODES, folder=tmp_path).run()
    assert time.monotonic() - begun < PATIENCE_S, "its closed sockets tell, no timeout does"
    assert "no reply" not in strategy.history[-1].reason
    assert "member 0 lost member 3" in strategy.history[-1].reason
    assert not vector_of(strategy).any()
    assert strategy.state.progress.charged == 0


def test_a_member_killed_when_it_may_have_opened_the_result_is_charged_for(
    tmp_path, addresses, places, monkeypatch
):
    Killing(monkeypatch, at=places[1])
    strategy = Direct(settings_of(addresses), NODES, folder=tmp_path).run()
    assert not vector_of(strategy).any()
    assert strategy.state.progress.charged == 1


def has_totals(content: RecordDict) -> bool:
    return Progress.__name__ in content and decode(Progress, content).totals is not None


def test_a_member_that_falls_silent_after_the_opening_ends_the_round_which_is_charged(
    tmp_path, addresses
):
    federation = Direct(settings_of(addresses), NODES, folder=tmp_path)
    run_app = federation.grid._run_app

    def gone_with_the_result(message, node):
        reply = run_app(message, node)
        if node == 1004 and reply.has_content() and has_totals(reply.content):
            return Message(Error(NODE_UNAVAILABLE, "Node unavailable"), reply_to=message)
        return reply

    federation.grid._run_app = gone_with_the_result
    strategy = federation.run()
    assert strategy.state.progress.charged == 1
    assert "Node unavailable" in strategy.history[-1].reason
    assert not vector_of(strategy).any()


def test_a_member_with_another_key_ends_the_round_and_the_next_one_goes_on(tmp_path, addresses):
    federation = Direct(
        settings_of(addresses, rounds=2, **IMPATIENT),
        NODES,
        folder=tmp_path,
    )
    path = key_file(tmp_path, 1)
    own = path.read_bytes()

    def tamper(stage, node, reply):
        if (stage, node) == ("deal", 1002) and round_of(reply) == 1:
            path.write_bytes(Identity.new().to_bytes())
        elif (stage, node) == ("committee", 1002):
            path.write_bytes(own)
        return reply

    federation.grid._tamper = tamper
    (skipped, charged), (second, _) = federation.run(Watched(federation.settings)).seen
    assert "member 1: refused, message: " in skipped
    assert (charged, second) == (0, "")


def test_members_at_each_others_addresses_are_turned_away_and_say_so(tmp_path, addresses, caplog):
    at = [name.partition("@")[2] for name in addresses]
    federation = Direct(
        settings_of(addresses, **IMPATIENT), NODES, folder=tmp_path, listens={1: at[2], 2: at[1]}
    )
    strategy = federation.run()
    assert "member 3 lost member 1" in strategy.history[-1].reason
    assert caplog.text.count("a connection said to be from committee member 0 to member 2") == 1
    assert strategy.state.progress.charged == 0


def test_two_members_with_different_settings_end_the_round_and_the_next_one_goes_on(
    tmp_path, addresses, monkeypatch, caplog
):
    """Though none of them compares its own with those that the round began with."""
    monkeypatch.setattr(NodeMemory, "check_settings", lambda *_: None)
    settings = settings_of(addresses, rounds=2, **IMPATIENT)
    federation = Direct(settings, NODES, folder=tmp_path)
    config = federation.grid.contexts[1001].run_config

    def tamper(stage, node, reply):
        if stage == "deal" and reply.has_content() and round_of(reply) == 1:
            config["robust.trim"] = 1
        elif (stage, node) == ("committee", 1001):
            config["robust.trim"] = 2
        return reply

    federation.grid._tamper = tamper
    (skipped, charged), (second, _) = federation.run(Watched(federation.settings)).seen
    assert skipped
    assert "is not signed by that member for this round" in caplog.text
    assert (charged, second) == (0, "")
