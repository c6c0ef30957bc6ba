"""A node's side of the committee: it deals, and some are members."""

from __future__ import annotations

from flwr.app import RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.protocols.committee.client import deal, finish
from fedgrpo.federation.protocols.committee.cosigning import vouch
from fedgrpo.federation.protocols.committee.member import work


class Node(NodeSide):
    """Keeps the release until the members are known."""

    def __init__(self) -> None:
        self.handlers = {"deal": deal, "committee": work, "cosign": vouch}

    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Answer with public keys and a tag only."""
        return finish(task.header, task.context, task.settings, task.ask, release)
