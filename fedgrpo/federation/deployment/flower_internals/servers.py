"""A SuperLink, and a SuperNode, each behind a secret."""

from __future__ import annotations

import inspect
import io
import logging
import re
import socket
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.types import ASGIApp

from fedgrpo.federation.deployment.flower_internals.crashes import answer_for_killed
from fedgrpo.federation.deployment.flower_internals.layers import straighten
from fedgrpo.federation.deployment.flower_internals.objects import see_soon
from fedgrpo.federation.deployment.flower_internals.pace import Mark, Pace

LOG = logging.getLogger(__name__)

_SETTINGS = "pyproject.toml"


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
    app = create_app(config, SuperLinkLifespan)
    straighten(app)
    return app


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
    contact:
        File that is touched whenever the server has answered; empty for none.
    """

    server: str
    root: str
    key: str
    config: Mapping[str, Any]
    secret: str
    contact: str = ""


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
        told, kind = {"code": "bundle-unreadable"}, type(error).__name__
        LOG.warning("the settings in a run's bundle cannot be read: %s", kind, extra=told)
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


LOOK = Pace(quiet_s=4.0, busy_s=0.2)
"""Of a SuperNode, for messages. Flower's own looks every 3 s, also in the middle of a
round; fifty nodes that do so while nothing runs take a fifth of one of the server's cores."""
_FLOWERS_LOOK_S = 3.0
"""Longest pause in Flower's loop, which it makes where no message has come."""
_ANSWERED_S = 0.05
"""Between two looks whether a message is answered, on this machine. Flower's own is 0.5 s."""


class _Pauses:
    """Takes the place of the module ``time`` in the loop of a SuperNode."""

    def __init__(self, pace: Pace, contact: Mark) -> None:
        self._pace, self._contact = pace, contact

    def sleep(self, seconds: float) -> None:
        """Pause for as long as the pace says. Short pauses are those in which a message is here."""
        if seconds < _FLOWERS_LOOK_S:
            self._pace.came()
        else:  # The server was asked just now, and had nothing.
            self._contact.now()
        time.sleep(_ANSWERED_S if seconds < _FLOWERS_LOOK_S else self._pace.wait_s)


def quicken(node_loop: ModuleType, pace: Pace, contact: Mark) -> bool:
    """Have a SuperNode's loop look for messages by a pace, and mark when the server answered.

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
            "every few seconds, and rounds take longer",
            extra={"code": "flower-unknown"},
        )
        return False
    node_loop.time = _Pauses(pace, contact)  # type: ignore[attr-defined]
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
    quicken(node_loop, LOOK, Mark(Path(start.contact) if start.contact else None))
    see_soon()
    key = load_ssh_private_key(Path(start.key).read_bytes(), None)
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    answer_for_killed(states.state())
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
