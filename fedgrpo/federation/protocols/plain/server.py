"""The plain protocol: the server collects each client's release as it is.

Adversary: up to ``robust.trim`` clients that send anything, and readers of the released models. The
server is *trusted*: it sees every release, with the client's own noise if ``privacy.noise`` is
``client`` and without any if it is ``server``. In return, the robust rule works on single clients,
so trimming k withstands k attackers among as few as 2 k + 1 clients instead of 2 k + 1 buckets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Failures, Round, RoundOutcome, values_of
from fedgrpo.federation.protocols.means import GroupMean, GroupMeans, MeansServer
from fedgrpo.federation.wire.exchange import Replies
from fedgrpo.federation.wire.messages import read_release
from fedgrpo.federation.wire.participants import read_participants
from fedgrpo.privacy.release import ReleasePlan


@dataclass
class Server(MeansServer):
    """Trims single clients."""

    def aggregate(self, current: Round, replies: Replies) -> tuple[RoundOutcome, Failures]:
        """Combine what the answers to the order to train hold."""
        releases = read_participants(
            replies, current.link.header, lambda _, c: read_plain(c, current.plan)
        )
        if problem := self.missing(releases):
            return RoundOutcome(problem), releases.failures
        return self.combined(current, plain_groups(values_of(releases)), releases)


def read_plain(content: RecordDict, plan: ReleasePlan) -> NDArray[np.float64]:
    """Read a client's release, saturated to what an honest one can be.

    Adversary: the sender. Saturating each coordinate is 1-Lipschitz, so the sensitivity of what
    follows stays; honest releases lie within the bound, as in :mod:`fedgrpo.secure.encoding`.
    Raises ProtocolError if it is not finite float64 of shape ``(plan.size,)``.
    """
    release = read_release(content, plan.size)
    return np.clip(release, -plan.bound, plan.bound)


def plain_groups(releases: Mapping[int, NDArray[np.float64]]) -> GroupMeans:
    """Return each client as a group of one, which no grid has rounded, in the same order."""
    means = (GroupMean(release, (node,), 0.0) for node, release in releases.items())
    return GroupMeans(tuple(means), {})
