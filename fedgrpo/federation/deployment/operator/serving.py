"""What ``fedgrpo server`` is: a gateway, and behind it a SuperLink and an executor."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedgrpo.federation.deployment.children import keep_running, start
from fedgrpo.federation.deployment.flower_internals.runtime import Runtime
from fedgrpo.federation.deployment.gateway.app import Gateway
from fedgrpo.federation.deployment.gateway.enrolment.book import Book
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.serve import listen, server
from fedgrpo.federation.deployment.operator.certificates import write_inner
from fedgrpo.federation.deployment.operator.federation_file import FILE
from fedgrpo.federation.deployment.operator.folder import NAME, StateFolder
from fedgrpo.federation.deployment.operator.keeping import Keeper
from fedgrpo.federation.deployment.operator.registering import keep_registered
from fedgrpo.federation.deployment.units import keep_telling
from fedgrpo.federation.wire.app_bundle import deployed_app
from fedgrpo.ground.run_files import SERVER_LOCK, alone

LOG = logging.getLogger(__name__)

SUPERLINK = "fedgrpo.federation.deployment.operator.superlink"
EXECUTOR = "fedgrpo.federation.deployment.executor.tasks"


@dataclass(frozen=True)
class Operator:
    """How a server is to run.

    Attributes
    ----------
    state:
        Folder of its state.
    certificate, key:
        Of the gateway's TLS: PEM files.
    host, port:
        Where the gateway listens; port 0 lets the system choose.
    app:
        The server app: ``package.module:name``.
    """

    state: Path
    certificate: Path
    key: Path
    host: str
    port: int
    app: str


def serve(operator: Operator) -> None:
    """Run until a signal ends it.

    Raises
    ------
    RunError
        If it cannot start.
    """
    os.umask(0o077)
    folder = StateFolder.of(operator.state)
    with (
        alone(folder.path, SERVER_LOCK, cure="end that server, or name another folder"),
        listen(operator.host, operator.port) as outside,
        socket.create_server(("127.0.0.1", 0)) as inside,
    ):
        asyncio.run(_serve(operator, folder, outside, inside))


async def _serve(
    operator: Operator, folder: StateFolder, outside: socket.socket, inside: socket.socket
) -> None:
    bearer, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    address = f"127.0.0.1:{inside.getsockname()[1]}"
    write_inner(folder.certificate, folder.key)
    folder.write_access(address, bearer)
    shutil.rmtree(folder.bundle, ignore_errors=True)
    deployed_app(folder.bundle)
    inner = Inner(address, str(folder.certificate), bearer)
    book = Book(folder.path)
    book.sites()  # One that cannot be read is found out now.
    gateway = server(Gateway(inner, book), operator.certificate, operator.key)
    runtime = Runtime(address, str(folder.certificate), bearer, secret)
    _say(operator, folder, outside)
    async with asyncio.TaskGroup() as group:
        kept = [
            group.create_task(keep_running(name, begin))
            for name, begin in _children(operator, folder, inside, runtime)
        ]
        kept.append(group.create_task(keep_registered(inner, book)))
        kept.append(group.create_task(Keeper(folder, inner).keep()))
        kept.append(group.create_task(keep_telling()))
        try:
            await gateway.serve(sockets=[outside])
        finally:
            for child in kept:
                child.cancel()
            await inner.close()


def _children(
    operator: Operator, folder: StateFolder, inside: socket.socket, runtime: Runtime
) -> list[tuple[str, Any]]:
    """Names of the processes behind the gateway, and what starts them."""
    descriptor = inside.fileno()
    superlink: Mapping[str, Any] = {
        "socket": descriptor,
        "certificate": str(folder.certificate),
        "key": str(folder.key),
        "database": str(folder.database),
        "bearer": runtime.bearer,
        "secret": runtime.secret,
    }
    executor: Mapping[str, Any] = {
        "runtime": asdict(runtime),
        "kind": "flwr-serverapp",
        "app": operator.app,
    }
    return [
        ("the SuperLink", lambda: start(SUPERLINK, superlink, keep=(descriptor,))),
        ("the executor", lambda: start(EXECUTOR, executor)),
    ]


def _say(operator: Operator, folder: StateFolder, outside: socket.socket) -> None:
    port = outside.getsockname()[1]
    LOG.warning("sites reach this server at %s:%d", operator.host, port)
    if (folder.path / FILE).exists():
        LOG.warning("on this machine: fedgrpo invite, sites, run, status --server %s", folder.path)
        return
    LOG.warning(
        "on this machine: FLWR_HOME=%s flwr run %s %s -c SETTINGS.toml",
        folder.flower,
        folder.bundle,
        NAME,
    )
