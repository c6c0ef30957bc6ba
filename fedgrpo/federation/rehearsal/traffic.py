"""How many bytes a node sends and receives in a round: one is played, and its messages measured."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace

import numpy as np
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedgrpo.federation.node.client_app import make_client_app
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.server.strategy import FedGRPO
from fedgrpo.federation.simulation.flower_internals import object_bytes
from fedgrpo.federation.simulation.local_grid import LocalGrid, stage_of
from fedgrpo.federation.wire.codec import put
from fedgrpo.federation.wire.link import refusal_words
from fedgrpo.federation.wire.messages import read_refusal, write_adapter
from fedgrpo.ground.errors import RunError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings
from fedgrpo.settings.protocols import protocol_of

SMALL, LARGE = 1024, 2048
"""Dimensions that are played. Every message is a constant and so many bytes a coordinate, where the
protocol does with both what it would do with the adapter's own.
"""


@dataclass(frozen=True)
class Traffic:
    """Bytes of one node in one round, without the transport's own framing (a few per cent).

    Attributes
    ----------
    sent, received:
        By the node, over all messages of the round.
    member_sent, member_received:
        What a member of the committee sends and receives on top, relayed or directly; 0 without
        one.
    """

    sent: float
    received: float
    member_sent: float = 0.0
    member_received: float = 0.0

    def stretched(self, larger: Traffic, by: float) -> Traffic:
        """Draw the line through two dimensions on to a third."""
        pairs = zip(astuple(self), astuple(larger), strict=True)
        return Traffic(*(small + by * (large - small) for small, large in pairs))


class CountingGrid(LocalGrid):
    """A federation in this process that measures the messages of each direction."""

    def __init__(self, app: ClientApp, nodes: int, settings: Settings) -> None:
        super().__init__(app, nodes, run_config=settings.to_run_config(), tamper=self._count_reply)
        self._protocol = protocol_of(settings)
        self._sent, self._received = Counter[bool](), Counter[bool]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages, and count them as received by the nodes."""
        listed = list(messages)
        for message in listed:
            self._received[self._is_members(stage_of(message))] += wire_bytes(message)
        return super().push_messages(listed)

    def traffic(self) -> Traffic:
        """Mean over the nodes, and over the members."""
        nodes, members = len(self.contexts), self._protocol.members or 1
        return Traffic(
            self._sent[False] / nodes,
            self._received[False] / nodes,
            self._sent[True] / members,
            self._received[True] / members,
        )

    def _is_members(self, stage: str) -> bool:
        return stage in self._protocol.member_messages

    def _count_reply(self, stage: str, node: int, reply: Message) -> Message:
        code = read_refusal(reply.content) if reply.has_content() else None
        if code or reply.has_error():
            reason = refusal_words(code) if code else reply.error.reason
            raise RunError(
                f"a played round failed at stage {stage}: {reason}",
                cure="correct the settings that it names",
            )
        self._sent[self._is_members(stage)] += wire_bytes(reply)
        return reply


class _Silent:
    """A client whose release is zero."""

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> NDArray[np.float64]:
        return np.zeros(plan.size)


def round_traffic(settings: Settings, adapter: AdapterState) -> Traffic:
    """Measure a round of the configured protocol among the least number of clients, nobody
    dropping out.

    Two rounds over tiny adapters are played in this process, with clients that release zeros, and
    drawn out to the adapter's size. So the figure follows the protocol's own code, whatever it is.
    Raises RunError if the played round fails.

    Parameters
    ----------
    adapter:
        Its size and its frozen basis, which the node receives once, with its first order.
    """
    size = adapter.vector.size
    small, large = (_played(settings, dimension, size) for dimension in (SMALL, LARGE))
    stretch = (size - SMALL) / (LARGE - SMALL)
    bare = AdapterState(adapter.vector[:1], {}, adapter.layout)
    basis = _order_bytes(replace(bare, basis=adapter.basis)) - _order_bytes(bare)
    found = small.stretched(large, stretch)
    return replace(found, received=found.received + basis)


def _order_bytes(adapter: AdapterState) -> int:
    """Bytes of an adapter as orders carry it."""
    content = RecordDict()
    put(content, adapter)
    return object_bytes(content)


def wire_bytes(message: Message) -> int:
    """Bytes of everything that Flower pushes for a message."""
    # Of a copy: measuring leaves views in a message that cannot be copied any more.
    return object_bytes(copy.deepcopy(message))


def _played(settings: Settings, dimension: int, size: int) -> Traffic:
    """Play one round over an adapter of this dimension without a basis, as if it had that size."""
    chosen = settings.model_copy(
        update={
            "rounds": 1,
            "simulation": type(settings.simulation)(),
            "run": type(settings.run)(),
            # Nodes that are played have no keys of named members.
            "aggregation": settings.aggregation.model_copy(update={"committee": ()}),
        }
    )

    def silent(_: Settings, __: Mapping[str, Scalar]) -> _Silent:
        return _Silent()

    grid = CountingGrid(make_client_app(silent), chosen.federation.min_clients, chosen)
    adapter = AdapterState(np.zeros(dimension, np.float32), {}, "0" * 64)
    strategy = FedGRPO(chosen)
    with _quiet(), strategy.shortened(size - dimension):
        strategy.start(grid, write_adapter(adapter))
    return grid.traffic()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Flower from telling of a round that is only played."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
