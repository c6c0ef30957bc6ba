"""A node's side of the plain protocol: the release leaves as it is, in float32."""

from __future__ import annotations

import numpy as np
from flwr.app import RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.wire.codec import encode
from fedgrpo.federation.wire.messages import Unmasked


class Node(NodeSide):
    """Sends the release in the answer to the order to train."""

    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Answer with the release and its tag, which commits to what is sent.

        It is saturated first, as under masks, so that rounding moves no coordinate by more than
        half of :func:`fedgrpo.privacy.release.float32_step`.
        """
        bound = task.plan.bound
        sent = np.clip(release, -bound, bound).astype(np.float32)
        return encode(task.header, Unmasked(sent), task.store.tag(task.ask, sent.astype(float64)))
