"""The plain protocol: the server collects each client's release as it is.

Adversary: up to ``robust.trim`` clients that send anything, and readers of the released models. The
server is *trusted*: it sees every release, with the client's own noise if ``privacy.noise`` is
``client`` and without any if it is ``server``. In return, the robust rule works on single clients,
so trimming k withstands k attackers among as few as 2 k + 1 clients instead of 2 k + 1 buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Failures, Round, RoundOutcome, values_of
from fedgrpo.federation.protocols.means import Group, GroupMeans, MeansServer, block_size
from fedgrpo.federation.protocols.spool import Spool
from fedgrpo.federation.wire.codec import drop
from fedgrpo.federation.wire.exchange import Collection, Replies
from fedgrpo.federation.wire.messages import Unmasked, read_release
from fedgrpo.federation.wire.participants import read_participants
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.privacy.release import ReleasePlan, float32_step
from fedgrpo.secure.masks import blocks_of


@dataclass
class Server(MeansServer):
    """Trims single clients."""

    _releases: Releases | None = field(default=None, init=False, repr=False)

    def collection(self, current: Round) -> Collection[Message]:
        """Put each release away as its answer comes, and keep the answer without it."""
        self._releases = Releases(current.plan)
        return Collection(self._releases.take, reply_bytes=4 * current.plan.size)

    def aggregate(self, current: Round, replies: Replies[Message]) -> tuple[RoundOutcome, Failures]:
        """Combine what the answers to the order to train held."""
        releases, self._releases = self._releases, None
        assert releases is not None, "answers were collected as this protocol has them collected"
        found = read_participants(
            replies, current.link.header, lambda node, _: releases.place(node)
        )
        if problem := self.missing(found):
            return RoundOutcome(problem), found.failures
        return self.combined(current, releases.groups(values_of(found)), found)


class Releases:
    """The releases of a round, put away as they come.

    Adversary: their senders. Each coordinate is saturated to what an honest one can be, which is
    1-Lipschitz, so the sensitivity of what follows stays; honest releases lie within the bound, as
    in :mod:`fedgrpo.secure.encoding`.
    """

    def __init__(self, plan: ReleasePlan) -> None:
        self._plan, self._spool = plan, Spool(plan.size, np.float32)
        self._places: dict[int, int | ProtocolError] = {}

    def take(self, node: int, reply: Message) -> Message:
        """Take the release out of an answer, or what is in its place."""
        if reply.has_content():
            self._places[node] = self._taken(reply.content)
            drop(reply.content, Unmasked.__name__)
        return reply

    def place(self, node: int) -> int:
        """Where a node's release is; raises ProtocolError if what it sent is none."""
        found = self._places[node]
        if isinstance(found, ProtocolError):
            raise found
        return found

    def groups(self, places: Mapping[int, int]) -> GroupMeans:
        """Return each client as a group of one, in the same order."""
        step = float32_step(self._plan.bound)
        groups = (Group((node,), step) for node in places)
        return GroupMeans(tuple(groups), {}, self._blocks(list(places.values())))

    def _taken(self, content: RecordDict) -> int | ProtocolError:
        try:
            return self._spool.add(read_release(content, self._plan.size))
        except ProtocolError as error:
            return error

    def _blocks(self, places: list[int]) -> Iterator[NDArray[np.float64]]:
        bound = self._plan.bound
        for block in blocks_of(self._plan.size, block_size(len(places))):
            rows = np.empty((len(places), block.stop - block.start))
            for row, place in zip(rows, places, strict=True):
                row[:] = self._spool.read(place, block)
            yield np.clip(rows, -bound, bound, out=rows)
