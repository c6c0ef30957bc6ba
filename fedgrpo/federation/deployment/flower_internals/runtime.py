"""Where tasks come from. Who only tells of it to others imports nothing of Flower here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class Runtime:
    """Where tasks come from.

    Attributes
    ----------
    address:
        ``host:port`` of a SuperLink; of a SuperNode, the path of its socket.
    root:
        File of the certificate that a SuperLink must have; empty for a SuperNode.
    bearer:
        Opens a SuperLink; empty for a SuperNode.
    secret:
        Signs requests for tasks.
    """

    address: str
    root: str
    bearer: str
    secret: str

    def client(self, component: str, token: str = "") -> Any:
        """Client of one task, by its token, or without one, for asking for tasks."""
        from flwr.supercore.interceptors import (
            RuntimeTokenHttpInterceptor,
            RuntimeVersionHttpInterceptor,
            SuperExecAuthHttpInterceptor,
        )
        from flwr.supercore.retry import make_simple_http_retry_invoker
        from flwr.supercore.runtime import RuntimeHttpClient

        secret, asks = self.secret.encode(), frozenset({"/flwr.proto.Runtime/AcquireTask"})
        retries = make_simple_http_retry_invoker()
        if not token:
            # Else whoever asks would hear nothing else while nobody answers, not even its own end.
            retries.max_tries = 1
        client = RuntimeHttpClient.from_server_address(
            server_address=self.address if self.root else "node",
            insecure=not self.root,
            root_certificates=self.root or None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name=component),
                RuntimeTokenHttpInterceptor(token)
                if token
                else SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=asks),
            ],
            retry_invoker=retries,
        )
        client._client.close()
        client._client = self._transport()
        return client

    def _transport(self) -> httpx.Client:
        """Neither proxies nor redirects: what is meant for this machine stays there."""
        import httpx

        from fedgrpo.federation.deployment.flower_internals.own_socket import OwnSocket

        if not self.root:
            return httpx.Client(transport=OwnSocket(self.address), timeout=30.0, trust_env=False)
        import ssl

        headers = {"authorization": f"Bearer {self.bearer}"}
        trust = ssl.create_default_context(cafile=self.root)
        return httpx.Client(verify=trust, headers=headers, timeout=30.0, trust_env=False)
