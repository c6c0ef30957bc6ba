"""A node's side of the plain protocol: the release leaves as it is."""

from __future__ import annotations

from flwr.app import RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.wire.codec import encode
from fedgrpo.federation.wire.messages import Unmasked


class Node(NodeSide):
    """Sends the release in the answer to the order to train."""

    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Answer with the release and its tag."""
        return encode(task.header, Unmasked(release), task.store.tag(task.ask, release))
