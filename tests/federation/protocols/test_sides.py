"""A protocol is a description and a folder: all parts fit, and another one needs nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fedgrpo.federation.protocols import node_side, server_side
from fedgrpo.federation.protocols.base import Answering, NodeSide, ServerSide
from fedgrpo.federation.protocols.plain.node import Node as PlainNode
from fedgrpo.federation.protocols.plain.server import Server as PlainServer
from fedgrpo.federation.wire.codec import Header, encode
from fedgrpo.federation.wire.messages import Refused, read_refusal
from fedgrpo.ground.errors import SettingsError
from fedgrpo.privacy import guarantees
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import PROTOCOLS, Phase, Protocol
from fedgrpo.settings.protocols.base import SiteLimits
from fedgrpo.site import Policy, Refusal, broken_limits, explain
from tests.federation.federation import Federation, make_settings, small_delta, vector_of

NOISE = {"privacy__noise": "server"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sides_and_description_of_a_protocol_fit(name: str) -> None:
    settings = make_settings(aggregation__protocol=name)
    described, node = PROTOCOLS[name], node_side(settings)
    assert described.name == name
    assert issubclass(server_side(settings), ServerSide)
    assert isinstance(node, NodeSide)
    assert set(node.handlers) == set(described.messages)
    assert set(described.member_messages) <= set(described.messages)
    assert bool(described.member_messages) == bool(described.members)


def test_an_unknown_protocol_is_refused_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match="is not known") as caught:
        make_settings(aggregation__protocol="gossip")
    assert caught.value.cure == "choose from buckets, committee, plain"


@pytest.mark.parametrize(("name", "foreign"), [("buckets", "cosign"), ("plain", "mask")])
def test_a_node_answers_no_message_of_another_protocol(name: str, foreign: str) -> None:
    federation = Federation(make_settings(aggregation__protocol=name), nodes=9)
    federation.run()
    content = encode(Header(1, 1), Refused(Refusal.BUSY))
    message = Message(content, dst_node_id=1001, message_type=f"query.{foreign}")
    message.metadata.__dict__["_message_id"] = "m"
    reply = federation.grid._run_app(message, 1001)
    assert read_refusal(reply.content) is Refusal.MESSAGE


# Another protocol: each release leaves when it is called for.


class Called(Protocol):
    """Its description."""

    name = "called"
    shows = "your update, when it is called for"
    trusted_server = True
    phases = (Phase("call", "calling for updates"),)
    messages = ("call",)

    def adversaries(self, settings: Settings, size: int) -> list[tuple[str, float]]:
        return [("whoever calls", settings.privacy.noise_multiplier)]

    def page(self, limits: SiteLimits) -> Iterator[str]:
        yield "It leaves when the server calls for it."


class CalledNode(PlainNode):
    """Its node's side."""

    def __init__(self) -> None:
        self.handlers = {"call": lambda content, context, settings: content}

    def answer(self, task: Answering, release: np.ndarray) -> RecordDict:
        task.memory.keep_release(release)
        return super().answer(task, release)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "called", Called())
    for side, kind in (("server", PlainServer), ("node", CalledNode)):
        module = ModuleType(side)
        vars(module)[side.title()] = kind
        monkeypatch.setitem(sys.modules, f"fedgrpo.federation.protocols.called.{side}", module)
    monkeypatch.setitem(sys.modules, "fedgrpo.federation.protocols.called", ModuleType("called"))


@pytest.mark.usefixtures("called")
def test_another_protocol_runs_and_is_accounted_for_and_explained() -> None:
    settings = make_settings(aggregation__protocol="called", robust__rule="mean")
    strategy = Federation(settings, nodes=9).run()
    expected = np.mean([small_delta(partition, 1) for partition in range(9)], axis=0)
    assert vector_of(strategy) == pytest.approx(expected, abs=1e-7)
    private = make_settings(aggregation__protocol="called", privacy__unit="client",
                            privacy__noise_multiplier=8.0)  # fmt: skip
    assert [held.adversary for held in guarantees(private, 1)] == ["whoever calls"]
    page = " ".join(explain(Policy(protocols=("called",)), []).split())
    assert "It leaves when the server calls for it." in page
    assert "may be shown: your update, when it is called for." in page
    assert Refusal.PROTOCOL in dict(broken_limits(Policy(), private))
