"""A node's side of the plain protocol: the release leaves as it is."""

from __future__ import annotations

from flwr.app import RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.wire.messages import write_release


class Node(NodeSide):
    """Sends the release in the answer to the order to train."""

    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Answer with the release and its tag."""
        return write_release(task.header, release, task.store.tag(task.ask, release))
