"""The way inside: to one SuperLink on this machine, over TLS, with the secret that opens it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from fedgrpo.federation.deployment.flower_internals.control import (
    LIST_NODES,
    KnownNode,
    list_nodes,
    nodes_by_key,
)
from fedgrpo.federation.deployment.gateway.refused import RefusedError

PROTOBUF = "application/protobuf"
_KEPT_S = 60.0
"""Shorter than the SuperLink keeps a connection that is not used."""
_TIMES = httpx.Timeout(120.0, connect=5.0)


class Inner:
    """A SuperLink behind the gateway.

    Parameters
    ----------
    address:
        ``host:port``.
    root:
        File of the certificate that it must have.
    bearer:
        The secret that opens it.
    """

    def __init__(self, address: str, root: str, bearer: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"https://{address}",
            verify=ssl.create_default_context(cafile=root),
            headers={"authorization": f"Bearer {bearer}", "accept-encoding": "identity"},
            timeout=_TIMES,
            limits=httpx.Limits(
                max_connections=256, max_keepalive_connections=64, keepalive_expiry=_KEPT_S
            ),
            trust_env=False,
        )

    @asynccontextmanager
    async def asked(
        self, path: bytes, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes], size: int
    ) -> AsyncIterator[httpx.Response]:
        """Ask, and stream the answer.

        Parameters
        ----------
        path:
            Of a fixed list.
        headers:
            Beside those of every request.
        body, size:
            What is sent, and its bytes.

        Raises
        ------
        RefusedError
            If the SuperLink is not there.
        """
        sent = {**headers, "content-type": PROTOBUF, "content-length": str(size)}
        request = self._client.build_request("POST", path.decode(), headers=sent, content=body)
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise RefusedError(
                503,
                f"the SuperLink behind this gateway does not answer ({type(error).__name__})",
                cure="wait: the operator's machine starts it again",
            ) from None
        try:
            yield answer
        finally:
            await answer.aclose()

    async def nodes(self) -> Mapping[bytes, KnownNode]:
        """Registered nodes by their keys; raises RefusedError if the SuperLink is not there."""
        return nodes_by_key(await self.told(LIST_NODES, list_nodes()))

    async def told(self, path: bytes, body: bytes) -> bytes:
        """Ask for something whole; raises RefusedError if the SuperLink does not do it."""
        async with self.asked(path, {}, body, len(body)) as answer:
            try:
                content = await answer.aread()
            except httpx.HTTPError:
                raise RefusedError(503, "the SuperLink's answer broke off") from None
            if answer.status_code != httpx.codes.OK:
                raise RefusedError(503, f"the SuperLink refuses {path.decode()}")
            return content

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
