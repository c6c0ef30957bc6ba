"""Which nodes are registered, as the SuperLink has it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping

from fedgrpo.federation.deployment.flower_internals.control import KnownNode
from fedgrpo.federation.deployment.gateway.refused import RefusedError

FRESH_S, AT_LEAST_S = 30.0, 1.0
"""Nodes are asked for after so long, and for a key that is not among them after so little: however
many strangers ask. A key that was revoked is refused from the next request on, by the SuperLink."""
PATIENCE_S = 30.0
"""For its answer: a SuperLink that writes down a large message serves nobody else meanwhile."""


class Roster:
    """Registered nodes by their public keys.

    Parameters
    ----------
    ask:
        Asks the SuperLink for them.
    """

    def __init__(self, ask: Callable[[], Awaitable[Mapping[bytes, KnownNode]]]) -> None:
        self._ask = ask
        self._nodes: Mapping[bytes, KnownNode] = {}
        self._asked = self._failed = -math.inf
        self._lock = asyncio.Lock()

    async def node(self, key: bytes) -> int:
        """Id of the node with a key; raises RefusedError if none has it, or nobody can say."""
        async with self._lock:
            age_s = time.monotonic() - self._asked
            if age_s > (FRESH_S if key in self._nodes else AT_LEAST_S):
                await self._renew()
        if key not in self._nodes:
            raise RefusedError(
                401,
                "this node's key is not registered, or was revoked",
                cure="send the operator the node's public key and ask him to register it; "
                "if he did just now, try again in some seconds",
            )
        return self._nodes[key].number

    async def _renew(self) -> None:
        """Ask the SuperLink; of all who wait for the same, one asks."""
        if time.monotonic() - self._failed < AT_LEAST_S:
            raise _busy()
        try:
            async with asyncio.timeout(PATIENCE_S):
                self._nodes = await self._ask()
        except TimeoutError:
            self._failed = time.monotonic()
            raise _busy() from None
        except RefusedError:
            self._failed = time.monotonic()
            raise
        self._asked = time.monotonic()

    def believed_s(self, key: bytes, now: float) -> float:
        """Seconds for which the SuperLink still takes a node to be there, and lets in no second one
        with its key; 0 for one that it does not.
        """
        node = self._nodes.get(key)
        return max(0.0, node.until - now) if node and node.online else 0.0

    def doubt(self) -> None:
        """Ask again when the next one comes: the SuperLink has refused one who is known here."""
        if time.monotonic() - self._asked > AT_LEAST_S:
            self._asked = -math.inf


def _busy() -> RefusedError:
    return RefusedError(
        503,
        "the SuperLink behind this gateway does not answer",
        cure="wait: it is busy, or the operator's machine starts it again",
    )
