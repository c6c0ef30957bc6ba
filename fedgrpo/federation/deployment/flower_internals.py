"""Everything that a deployment uses of Flower's private parts, in one file.

They may move with any release of Flower: ``pyproject.toml`` pins the minor version that the tests
ran with. To take a newer one, correct this file, pass the tests, and widen the pin.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import queue
import re
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE, SubStatus
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.serverapp import ServerApp
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    public_key_to_bytes,
    sign_message,
    verify_signature,
)
from starlette.types import ASGIApp

from fedgrpo.federation.deployment.pace import Pace

LOG = logging.getLogger(__name__)

AGE_S = (-SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)
"""How many seconds a signed time may be in the future, as a negative number, and in the past."""
LIST_NODES = b"/v1/control/list-nodes"
REGISTER_NODE, UNREGISTER_NODE = b"/v1/control/register-node", b"/v1/control/unregister-node"
LIST_RUNS, STOP_RUN = b"/v1/control/list-runs", b"/v1/control/stop-run"
_SETTINGS = "pyproject.toml"
APP_FAILED = "the app that this site runs raised an exception: see the site's own log"
"""All that leaves a node about an exception."""


def verified(public_key: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether a node's key signed this."""
    try:
        return bool(verify_signature(bytes_to_public_key(public_key), signed, signature))
    except (ValueError, TypeError):
        return False


def public_bytes(private_key: Any) -> bytes:
    """A node's public key as it travels."""
    return bytes(public_key_to_bytes(private_key.public_key()))


def sign(private_key: Any, message: bytes) -> tuple[bytes, bytes]:
    """A node's public key as it travels, and its signature."""
    return public_bytes(private_key), sign_message(private_key, message)


def list_nodes() -> bytes:
    """Body of the question which nodes are registered."""
    return bytes(ListNodesRequest().SerializeToString())


@dataclass(frozen=True)
class KnownNode:
    """A node as the SuperLink has it.

    Attributes
    ----------
    number:
        Its id.
    online:
        Whether it has been heard of in time.
    until:
        Unix time, in seconds, until which it was taken to be there; 0 if it never was.
    """

    number: int
    online: bool
    until: float


def nodes_by_key(body: bytes) -> dict[bytes, KnownNode]:
    """Read the answer: registered nodes by their public keys."""
    nodes = ListNodesResponse.FromString(body).nodes_info
    return {
        node.public_key: KnownNode(node.node_id, node.status == "online", node.online_until)
        for node in nodes
        if node.status != "unregistered"
    }


def is_node_key(public_key: bytes) -> bool:
    """Whether a SuperLink would register this key."""
    from flwr.supercore.primitives.asymmetric import uses_nist_ec_curve

    try:
        return bool(uses_nist_ec_curve(bytes_to_public_key(public_key)))
    except (ValueError, TypeError, AttributeError):
        return False


def register_node(public_key: bytes) -> bytes:
    """Body of the request to let a key in."""
    return bytes(RegisterNodeRequest(public_key=public_key).SerializeToString())


def unregister_node(number: int) -> bytes:
    """Body of the request to let a node in no more. Its key never comes back."""
    return bytes(UnregisterNodeRequest(node_id=number).SerializeToString())


def list_runs() -> bytes:
    """Body of the question how the newest runs stand."""
    return bytes(ListRunsRequest().SerializeToString())


def run_ended(body: bytes, number: int) -> bool:
    """Read the answer: whether the run is over, or is not among the newest."""
    runs = ListRunsResponse.FromString(body).run_dict
    return number not in runs or runs[number].status.status == "finished"


def stop_run(number: int) -> bytes:
    """Body of the request to end a run."""
    return bytes(StopRunRequest(run_id=number).SerializeToString())


@dataclass(frozen=True)
class Pushed:
    """What a node pushes.

    Attributes
    ----------
    claimed:
        Ids of nodes that the messages say they come from.
    single:
        Whether it is one message and the list of its objects, as Flower's nodes push them.
    body:
        The same again, written anew: whoever reads it reads what was read here.
    """

    claimed: frozenset[int]
    single: bool
    body: bytes


def read_pushed(body: bytes) -> Pushed:
    """Read pushed messages; raises ValueError if they are none."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        raise ValueError("no pushed messages") from None
    # Added up as they come: one that is no number would spoil the sum for all.
    del request.clientapp_runtime_list[:]
    sources = {message.metadata.src_node_id for message in request.messages_list}
    claimed = frozenset(sources | {request.node.node_id})
    single = len(request.messages_list) == len(request.message_object_trees) == 1
    return Pushed(claimed, single, request.SerializeToString())


# The two servers ---------------------------------------------------------------------------------


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
            transport = httpx.HTTPTransport(uds=self.address)
            return httpx.Client(transport=transport, timeout=30.0, trust_env=False)
        import ssl

        headers = {"authorization": f"Bearer {self.bearer}"}
        trust = ssl.create_default_context(cafile=self.root)
        return httpx.Client(verify=trust, headers=headers, timeout=30.0, trust_env=False)


def superlink(database: Path, certificate: Path, key: Path, port: int, secret: str) -> ASGIApp:
    """A SuperLink that knows nodes by their keys and starts no app itself.

    Parameters
    ----------
    database:
        File of its state.
    certificate, key:
        Of its TLS.
    port:
        On 127.0.0.1.
    secret:
        Of whoever asks it for tasks.
    """
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=port,
        insecure=False,
        certificates=(certificate.read_bytes(), certificate.read_bytes(), key.read_bytes()),
        superexec_auth_secret=secret.encode(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(certificate),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        database=str(database),
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


@dataclass(frozen=True)
class NodeStart:
    """What a SuperNode is started with.

    Attributes
    ----------
    server:
        ``host:port``.
    root:
        File of the server's root certificate.
    key:
        File of the node's private key.
    config:
        The node's own configuration.
    secret:
        Of whoever asks it for tasks.
    """

    server: str
    root: str
    key: str
    config: Mapping[str, Any]
    secret: str


MOST_SETTINGS = 1 << 18
"""Bytes of a bundle's pyproject.toml, unpacked. fedgrpo's own has 4 kB."""


def settings_of(bundle: bytes, run: Any) -> dict[str, Any]:
    """A run's settings: the defaults that its bundle states, where it states any that can be read,
    under what was submitted.

    Adversary: an operator. Flower unpacks whatever size there is, and ends at what it cannot read.
    """
    from flwr.common.config import get_fused_config_from_fab

    try:
        return dict(get_fused_config_from_fab(_settings_alone(bundle), run))
    except Exception as error:
        LOG.warning("the settings in a run's bundle cannot be read: %s", type(error).__name__)
        return dict(run.override_config)


def _settings_alone(bundle: bytes) -> bytes:
    """A bundle with nothing but its settings; raises ValueError if those are too large."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as packed:
        # Of other kinds a few bytes may become gigabytes in one step.
        if packed.getinfo(_SETTINGS).compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise ValueError("packed in an unknown way")
        with packed.open(_SETTINGS) as file:
            content = file.read(MOST_SETTINGS + 1)
    if len(content) > MOST_SETTINGS:
        raise ValueError("too large")
    with zipfile.ZipFile(again := io.BytesIO(), "w") as alone:
        alone.writestr(_SETTINGS, content)
    return again.getvalue()


LOOK = Pace(quiet_s=3.0, busy_s=0.2)
"""Of a SuperNode, for messages. Flower's own looks every 3 s, also in the middle of a round."""
_FLOWERS_LOOK_S = 3.0
"""Longest pause in Flower's loop, which it makes where no message has come."""
_ANSWERED_S = 0.05
"""Between two looks whether a message is answered, on this machine. Flower's own is 0.5 s."""


class _Pauses:
    """Takes the place of the module ``time`` in the loop of a SuperNode."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def sleep(self, seconds: float) -> None:
        """Pause for as long as the pace says. Short pauses are those in which a message is here."""
        if seconds < _FLOWERS_LOOK_S:
            self._pace.came()
        time.sleep(_ANSWERED_S if seconds < _FLOWERS_LOOK_S else self._pace.wait_s)


def quicken(node_loop: ModuleType, pace: Pace) -> bool:
    """Have a SuperNode's loop look for messages by a pace.

    Returns
    -------
    bool
        False, and nothing is changed, where the loop is not the one that this was written for.
    """
    source = inspect.getsource(node_loop)
    pauses = re.findall(r"time\.(\w+)\(([^)]*)\)", source)
    if set(pauses) != {("sleep", "3"), ("sleep", "0.5")}:
        LOG.warning(
            "this Flower's SuperNode pauses in another way than 1.41: messages are looked for "
            "every few seconds, and rounds take longer"
        )
        return False
    node_loop.time = _Pauses(pace)  # type: ignore[attr-defined]
    return True


def run_supernode(start: NodeStart, listening: socket.socket) -> None:
    """Run a SuperNode whose tasks are asked for at a socket. Ends with the process."""
    import uvicorn
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode import start_client_internal as node_loop
    from flwr.supernode.main import create_app
    from flwr.supernode.nodestate import NodeStateFactory

    node_loop.get_fused_config_from_fab = settings_of  # type: ignore[attr-defined, assignment]
    quicken(node_loop, LOOK)
    key = load_ssh_private_key(Path(start.key).read_bytes(), None)
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    app = create_app(state_factory=states, superexec_auth_secret=start.secret.encode())
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning"))
    server_thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, daemon=True
    )
    server_thread.start()
    node_loop.start_client_internal(
        state_factory=states,
        server_address=start.server,
        root_certificates=start.root,
        insecure=False,
        authentication_keys=(key, key.public_key()),  # type: ignore[arg-type]
        node_config=dict(start.config),
        isolation="process",
        superexec_auth_secret=start.secret.encode(),
    )


# Tasks -------------------------------------------------------------------------------------------


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
