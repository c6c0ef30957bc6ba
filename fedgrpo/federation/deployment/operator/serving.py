"""What ``fedgrpo server`` is: a gateway, and behind it a SuperLink and an executor."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
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
from fedgrpo.federation.deployment.operator.federation_file import FILE, FederationFile
from fedgrpo.federation.deployment.operator.folder import NAME, StateFolder
from fedgrpo.federation.deployment.operator.keeping import Keeper
from fedgrpo.federation.deployment.operator.registering import keep_registered
from fedgrpo.federation.deployment.units import keep_telling
from fedgrpo.federation.wire.app_bundle import deployed_app
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.run_files import SERVER_LOCK, alone
from fedgrpo.report.watch.place import PASSWORD, Place, kept_password

LOG = logging.getLogger(__name__)

SUPERLINK = "fedgrpo.federation.deployment.operator.superlink"
EXECUTOR = "fedgrpo.federation.deployment.executor.tasks"
WATCHED = "fedgrpo.federation.deployment.operator.runs.watch.watched"


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
    status_bind:
        ``HOST:PORT`` of the status page; empty for none.
    """

    state: Path
    certificate: Path
    key: Path
    host: str
    port: int
    app: str
    status_bind: str = ""


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
        _page(operator) or nullcontext() as page,
    ):
        asyncio.run(_serve(operator, folder, outside, inside, page))


def _page(operator: Operator) -> socket.socket | None:
    """Where the status page is served; None if it cannot be, for which no server stays down."""
    if not operator.status_bind:
        return None
    try:
        return Place.of(operator.status_bind).listen()
    except RunError as error:
        LOG.warning("%s", error.problem, extra={"code": "status-unbound"})
        return None


async def _serve(
    operator: Operator,
    folder: StateFolder,
    outside: socket.socket,
    inside: socket.socket,
    page: socket.socket | None,
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
    _say(operator, folder, outside, page)
    async with asyncio.TaskGroup() as group:
        kept = [
            group.create_task(keep_running(name, begin))
            for name, begin in [
                *_children(operator, folder, inside, runtime),
                *(_watched(operator, folder, page) if page else ()),
            ]
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


def _watched(
    operator: Operator, folder: StateFolder, page: socket.socket
) -> Iterator[tuple[str, Any]]:
    """The process of the status page. Where other machines can reach it, it has the server's TLS
    and answers to the server's name, too.
    """
    place, descriptor = Place.of(operator.status_bind), page.fileno()
    names = [] if place.on_loopback else [FederationFile.read(folder.path).host, place.name]
    told: Mapping[str, Any] = {
        "socket": descriptor,
        "folder": str(folder.path),
        "password": kept_password(folder.path),
        "hosts": names,
        "tls": [] if place.on_loopback else [str(operator.certificate), str(operator.key)],
    }
    yield "the status page", lambda: start(WATCHED, told, keep=(descriptor,))


def _say(
    operator: Operator, folder: StateFolder, outside: socket.socket, page: socket.socket | None
) -> None:
    port = outside.getsockname()[1]
    LOG.info("sites reach this server at %s:%d", operator.host, port)
    if page:
        shown = Place.of(operator.status_bind).address
        LOG.info("status page: %s (password: %s)", shown, folder.path / PASSWORD)
    if (folder.path / FILE).exists():
        LOG.info("on this machine: fedgrpo invite, sites, run, status --server %s", folder.path)
        return
    LOG.info(
        "on this machine: FLWR_HOME=%s flwr run %s %s -c SETTINGS.toml",
        folder.flower,
        folder.bundle,
        NAME,
    )
