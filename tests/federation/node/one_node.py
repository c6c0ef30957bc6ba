"""One node of three that a test plays the server for."""

from __future__ import annotations

from flwr.app import Message, RecordDict

from fedgrpo.federation import LocalGrid, make_client_app
from fedgrpo.federation.wire.codec import Header, decode, encode
from fedgrpo.federation.wire.messages import (
    MASK,
    SHARE,
    TRAIN,
    Ciphertexts,
    TrainOrder,
    UnmaskOrder,
)
from fedgrpo.federation.wire.plans import order_digest
from fedgrpo.secure.roster import PublicKeys, Roster
from fedgrpo.site import Refusal
from tests.federation.federation import FakeClient, make_adapter, make_settings, small_delta
from tests.federation.sites import code_of


class Node:
    """One node that a test plays the server for."""

    def __init__(self, settings=None, *, client=None, run_id=1, **options):
        self.settings, self.releases = settings or make_settings(rounds=9), {}
        self.run_id = run_id
        app = make_client_app(client or self._client, **options)
        # Three nodes, so that the first has bucket peers; the test speaks for all of them.
        self.grid = LocalGrid(app, 3, run_config=self.settings.to_run_config(), run_id=run_id)

    def _client(self, settings, node_config):
        return FakeClient(int(node_config["partition-id"]), small_delta, self.releases)

    def ask(self, kind, content, node=1001) -> Message:
        message = Message(content, dst_node_id=node, message_type=kind)
        (reply,) = self.grid.send_and_receive([message])
        return reply

    def refusal(self, kind, content, node=1001) -> Refusal:
        code = code_of(self.ask(kind, content, node))
        assert code is not None
        return code

    def order(self, round=1, adapter=None, norm=1.0, fingerprint=None, run=None) -> RecordDict:
        header = Header(run or self.run_id, round)
        return encode(
            header,
            TrainOrder(
                header,
                "ab" * 16,
                adapter or make_adapter(),
                norm,
                fingerprint or self.settings.fingerprint(),
            ),
        )

    def trained(self, round=1) -> Roster:
        """Train all three and return the roster of their bucket."""
        keys = {}
        for node in self.grid.online:
            reply = self.ask(TRAIN, self.order(round), node)
            assert reply.has_content(), reply.error
            keys[node] = decode(PublicKeys, reply.content)
        order = order_digest(self.settings, make_adapter(), 1.0)
        return Roster(self.run_id, round, 0, tuple(keys), tuple(keys.values()), 2, order)

    def masked(self, round=1) -> Roster:
        """Go on until all three have sent their masked vectors."""
        roster = self.trained(round)
        asked = encode(Header(self.run_id, round), roster)
        dealt = {
            node: decode(Ciphertexts, self.ask(SHARE, asked, node).content).by_node
            for node in roster.members
        }
        for node in roster.members:
            peers = {peer: dealt[peer][node] for peer in roster.peers_of(node)}
            content = encode(Header(self.run_id, round), Ciphertexts(peers))
            assert self.ask(MASK, content, node).has_content()
        return roster

    @property
    def state(self) -> RecordDict:
        return self.grid.contexts[1001].state


def unmask(survivors, dropped=(), round=1, bucket=0, run=1):
    return encode(Header(run, round), UnmaskOrder(bucket, tuple(survivors), tuple(dropped)))
