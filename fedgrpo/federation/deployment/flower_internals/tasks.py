"""Where tasks come from, and how one is answered."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx
from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.serverapp import ServerApp

from fedgrpo.ground.machine import is_own

APP_FAILED = "the app that this site runs raised an exception: see the site's own log"
"""All that leaves a node about an exception."""


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
        if not self.root:
            return httpx.Client(transport=_OwnSocket(self.address), timeout=30.0, trust_env=False)
        import ssl

        headers = {"authorization": f"Bearer {self.bearer}"}
        trust = ssl.create_default_context(cafile=self.root)
        return httpx.Client(verify=trust, headers=headers, timeout=30.0, trust_env=False)


class _OwnSocket(httpx.HTTPTransport):
    """To a Unix socket at which this user's own process listens."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = httpcore.ConnectionPool(uds=path, network_backend=_OwnPeers())


class _OwnPeers(httpcore.NetworkBackend):
    """Connects to no other user, who could hand in orders and a configuration of his own."""

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.NetworkStream:
        stream = httpcore.SyncBackend().connect_unix_socket(path, timeout, socket_options)
        connection = stream.get_extra_info("socket")
        if isinstance(connection, socket.socket) and is_own(connection):
            return stream
        stream.close()
        raise httpcore.ConnectError(f"another user listens at {path}")


def import_for_tasks(kind: str) -> None:
    """Import what a task of that kind takes of Flower."""
    import flwr.supercore.heartbeat
    import flwr.supernode.runtime.run_clientapp

    if kind == "flwr-serverapp":
        import flwr.superlink.grid  # noqa: F401


def next_task(client: Any, kind: str) -> str:
    """Token of the next task; empty while there is none."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest

    answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
    return str(answer.token) if answer.HasField("task") else ""


@contextlib.contextmanager
def _beating(client: Any) -> Iterator[None]:
    """Say that the task is alive, until it ends. A task that was stopped gets a SIGINT."""
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http

    sender = HeartbeatSender(make_task_heartbeat_fn_http(client))
    sender.start()
    try:
        yield
    finally:
        if sender.is_running:
            sender.stop()


def answer_message(
    client: Any, app: Callable[[], ClientApp], failed: Callable[[BaseException], None]
) -> None:
    """Have a site's app answer one message. What the bundle brings is neither unpacked nor read.

    Parameters
    ----------
    client:
        Of the task.
    app:
        Loads the one that is installed at the site; meanwhile, the task is alive.
    failed:
        Gets what the app raised, which stays at the site.
    """
    from flwr.supernode.runtime.run_clientapp import (
        pull_task_input,
        push_message,
        push_task_output,
    )

    with _beating(client):
        message, context, _, _ = pull_task_input(client)
        try:
            reply = app()(message=message, context=context)
        except Exception as error:
            failed(error)
            reply = Message(Error(code=0, reason=APP_FAILED), reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.COMPLETED, "")


def serve_run(client: Any, app: Callable[[], ServerApp]) -> None:
    """Have the operator's installed app serve one run. Of the bundle, settings alone are read."""
    from flwr.common.config import get_fused_config_from_fab
    from flwr.common.serde import context_from_proto, fab_from_proto, run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    with _beating(client):
        given = client.PullTaskInput(PullTaskInputRequest())
        context, run = context_from_proto(given.context), run_from_proto(given.run)
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, run.run_id
        TaskIdentity.node_id = context.node_id
        grid = HttpGrid("", token="unused")
        grid._client = client
        grid.set_run(run)
        with _logs_of(client, run.run_id), _outcome_of(client):
            fab = fab_from_proto(given.fab)
            context.run_config = get_fused_config_from_fab(fab.content, run)
            app()(grid=grid, context=context)


@contextlib.contextmanager
def _outcome_of(client: Any) -> Iterator[None]:
    """Tell the SuperLink how the run ended; what the app raised is raised on."""
    from flwr.supernode.runtime.run_clientapp import push_task_output

    try:
        yield
    except BaseException as error:
        said = f"ServerApp failed with exception: {error}"
        stopped = not isinstance(error, Exception)
        push_task_output(client, None, SubStatus.STOPPED if stopped else SubStatus.FAILED, said)
        raise
    push_task_output(client, None, SubStatus.COMPLETED, "")


@contextlib.contextmanager
def _logs_of(client: Any, run_id: int) -> Iterator[None]:
    """Let ``flwr log`` see what is printed meanwhile."""
    from flwr.supercore.logger import (
        flush_logs,
        mirror_output_to_queue,
        restore_output,
        start_log_uploader,
        stop_log_uploader,
    )

    lines: queue.Queue[str | None] = queue.Queue()
    mirror_output_to_queue(lines)
    uploader = start_log_uploader(lines, node_id=0, run_id=run_id, client=client)
    try:
        yield
    finally:
        flush_logs(lines)
        stop_log_uploader(lines, uploader)
        restore_output()
