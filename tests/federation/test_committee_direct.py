"""Rounds over a committee whose members are linked by real TLS connections on loopback."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message

from fedgrpo.federation import LocalGrid, committee_member, make_client_app
from fedgrpo.federation.committee_identity import KEY_FILE
from fedgrpo.federation.committee_member import LISTEN
from fedgrpo.federation.local_grid import NODE_UNAVAILABLE, stage_of
from fedgrpo.secure.committee import Identity
from tests.federation.federation import FakeHolder, Federation, make_settings, vector_of
from tests.federation.kills import KilledError
from tests.federation.test_committee_round import COMMITTEE, of_encoded

NODES = 9
PATIENCE_S = 2.0
"""Third of the time for a reply: what a member waits for one that never comes."""


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
        self.grid = ParallelGrid(
            make_client_app(lambda settings, config: self._site(str(config["state"]))),
            self.nodes,
            node_config=self._config,
            run_config=self.settings.to_run_config(),
            drop=self.drop,
            tamper=self.tamper,
        )

    def _site(self, state: str) -> FakeHolder:
        return FakeHolder(int(Path(state).name), self.delta, self.releases)

    def _config(self, place: int) -> dict[str, str]:
        config = {"state": str(self.folder / str(place))}
        if place in range(4):
            config[KEY_FILE] = str(key_file(self.folder, place))
        if place in self.listens:
            config[LISTEN] = self.listens[place]
        return config


def key_file(folder, place):
    return folder / f"member-{place}.key"


@pytest.fixture
def addresses(tmp_path):
    """Keys in files, and four free ports: what a scenario file names the members by."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        ports = [probe.getsockname()[1] for probe in probes]
    named = []
    for place, port in enumerate(ports):
        identity = Identity.new()
        key_file(tmp_path, place).touch(mode=0o600)
        key_file(tmp_path, place).write_bytes(identity.to_bytes())
        keys = identity.public
        named.append(f"{(keys.signing + keys.agreement).hex()}@127.0.0.1:{port}")
    return named


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def settings_of(addresses, **changed):
    named = {"aggregation__committee": ",".join(addresses)}
    patience = {"federation__reply_timeout_s": 3 * PATIENCE_S}
    return make_settings(**COMMITTEE | named | patience | changed)


class Killing:
    """Links of the real kind, that die under one member after so many of its exchanges."""

    def __init__(self, monkeypatch, member, exchanges, after_sending=False):
        self._real = committee_member.connect
        self.member, self.left, self.after_sending = member, exchanges, after_sending
        monkeypatch.setattr(committee_member, "connect", self.connect)

    @contextmanager
    def connect(self, party, listener, timeout_s):
        if party.index == self.member and self.left == 0:
            raise KilledError
        with self._real(party, listener, timeout_s) as links:
            if party.index == self.member:
                exchange = links.exchange
                links.exchange = lambda step: self._exchange(links, exchange, step)
            yield links

    def _exchange(self, links, exchange, step):
        self.left -= 1
        if self.left <= 0:
            if self.after_sending:
                for peer, payload in step.outgoing.items():
                    links._send(peer, payload)
            for stream in links._sockets:
                socket.socket.shutdown(stream, socket.SHUT_RDWR)
            raise KilledError
        return exchange(step)


def exchanges_of(monkeypatch, federation, member=3):
    """Run undisturbed, and count what one member exchanges."""
    with monkeypatch.context() as patches:
        count = Killing(patches, member, 10**9)
        federation.run()
    return 10**9 - count.left


def test_members_linked_by_tls_open_the_exact_trimmed_mean_in_every_round(tmp_path, addresses):
    federation = Direct(settings_of(addresses, rounds=2), NODES, folder=tmp_path)
    strategy = federation.run()
    assert len(strategy._round.outcome.members) == 4
    assert strategy.state.progress.charged == 2
    first = of_encoded(federation, range(NODES))
    second = of_encoded(federation, range(NODES), round=2)
    assert np.array_equal(vector_of(strategy), first + second)
    # One message to toss, one a round: nothing that members tell each other passes the server.
    asked = [node for stage, node in federation.grid.sent if stage == "committee"]
    assert asked == [1001, 1002, 1003, 1004] * 3
