"""Which nodes are registered, as the SuperLink has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from fedgrpo.federation.deployment.gateway.refused import RefusedError

FRESH_S = 2.0
"""A key is asked about again after so long: then at the latest, one that was revoked is refused
here. The SuperLink refuses it from the next request on."""


class Roster:
    """Registered nodes by their public keys.

    Parameters
    ----------
    ask:
        Asks the SuperLink for them.
    """

    def __init__(self, ask: Callable[[], Awaitable[Mapping[bytes, int]]]) -> None:
        self._ask = ask
        self._nodes: Mapping[bytes, int] = {}
        self._asked = -FRESH_S
        self._lock = asyncio.Lock()

    async def node(self, key: bytes) -> int:
        """Id of the node with a key; raises RefusedError if none has it.

        However many strangers ask, the SuperLink is asked once in ``FRESH_S``.
        """
        async with self._lock:
            if time.monotonic() - self._asked > FRESH_S:
                self._nodes = await self._ask()
                self._asked = time.monotonic()
        if key not in self._nodes:
            raise RefusedError(
                401,
                "this node's key is not registered, or was revoked",
                cure="send the operator the node's public key and ask him to register it; "
                "if he did just now, try again in some seconds",
            )
        return self._nodes[key]
