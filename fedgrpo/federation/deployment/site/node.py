"""What ``fedgrpo node`` is: a SuperNode, and an executor that runs the installed app.

Between the two is a Unix socket in a folder of mode 0700, and a secret: this node listens at no
port but one for a status page where its people ask for it, so other users of the machine find
nothing else to connect to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fedgrpo.federation.deployment.children import answered, keep_running, start, start_every
from fedgrpo.federation.deployment.executor.apps import RESIDENT
from fedgrpo.federation.deployment.flower_internals.runtime import Runtime
from fedgrpo.federation.deployment.flower_internals.servers import NodeStart
from fedgrpo.federation.deployment.log import log_here
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.deployment.units import keep_telling
from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.run_files import alone
from fedgrpo.settings import Settings
from fedgrpo.site.node_folder import CONTACT, RUNNING, SHUT_OUT, STATE, node_folder, owned_folder

LOG = logging.getLogger(__name__)

SUPERNODE = "fedgrpo.federation.deployment.site.supernode"
EXECUTOR = "fedgrpo.federation.deployment.executor.tasks"
WATCHED = "fedgrpo.federation.deployment.site.watch.watched"
VISIT = "fedgrpo.federation.deployment.doctor.visit"
VISIT_EVERY_S, LONGEST_VISIT_S = 3600.0, 600.0

Begin = Callable[[], subprocess.Popen[bytes]]
"""Starts a process."""


def run_node(site: SiteFile, *, no_policy: bool) -> None:
    """Have what is here checked, and the server greeted, and answer until a signal ends it.

    This process stays for as long as the node does, so it keeps nothing that checks need.

    Parameters
    ----------
    site:
        What the site's people have written down.
    no_policy:
        Whether to start without a policy.

    Raises
    ------
    FedGRPOError
        If it cannot start, with a cure.
    """
    os.umask(0o077)
    folder = _folder(site)
    log_here(folder / "logs" / "node.log" if folder else None)
    _check_page(site.status_bind)
    if said := _asked(site, "start", no_policy=no_policy):
        raise RunError(said["problem"], cure=said["cure"])
    if no_policy:
        LOG.warning("without a policy this node refuses every order", extra={"code": "policy-none"})
    with (
        _alone(folder),
        _watched(site, folder) as watched,
        tempfile.TemporaryDirectory(prefix="fedgrpo-") as sockets,
        _socket(Path(sockets) / "node") as tasks,
        _socket(Path(sockets) / "model") as door,
    ):
        asyncio.run(_run(site, folder, tasks, door, watched))


def _folder(site: SiteFile) -> Path | None:
    """Where the node keeps its state. An app of the site's own may have no such place."""
    if "prompts" not in site.node_config and STATE not in site.node_config:
        return None
    return node_folder(site.node_config, Settings())


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Keep a second node from the folder of this one."""
    if folder is None:
        yield
        return
    with alone(owned_folder(folder), RUNNING, cure="end that node: one node a folder"):
        yield


def _check_page(bind: str) -> None:
    """Refuse a page that other machines could reach: a site has no certificate to show them."""
    if not bind:
        return
    from fedgrpo.report.watch.place import Place  # A node without a page is the lighter for it.

    if not Place.of(bind).on_loopback:
        raise SettingsError(
            f"status_bind = {bind!r} is not on loopback",
            cure='write "127.0.0.1:8450", and come from elsewhere by ssh: ssh -L 8450:127.0.0.1:'
            "8450 HOST",
        )


@contextmanager
def _watched(site: SiteFile, folder: Path | None) -> Iterator[Begin | None]:
    """What starts the process of the site's status page; None where there is none."""
    if not (site.status_bind and folder):
        yield None
        return
    from fedgrpo.report.watch.place import PASSWORD, Place, kept_password

    place = Place.of(site.status_bind)
    try:
        listening = place.listen()
    except RunError as error:
        LOG.warning("%s", error.problem, extra={"code": "status-unbound"})
        yield None
        return
    with listening:
        told = {
            "socket": listening.fileno(),
            "site": site.model_dump(),
            "password": kept_password(owned_folder(folder)),
        }
        LOG.info("status page: %s (password: %s)", place.address, folder / PASSWORD)
        yield lambda: start(WATCHED, told, keep=(listening.fileno(),))


@contextmanager
def _socket(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket that this user alone can reach. Paths of sockets must be short."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(16)
        yield listening


def _executor(site: SiteFile, runtime: Runtime, door: socket.socket) -> dict[str, Any]:
    """What the executor is told. An app of the site's own computes in its own way."""
    told = {"runtime": asdict(runtime), "kind": "flwr-clientapp"}
    if site.own_app or not site.idle_unload_min:
        return told | {"app": site.app, "made_of": []}
    opened = {"door": door.fileno(), "idle_s": 60 * site.idle_unload_min}
    return told | opened | {"app": RESIDENT, "made_of": [door.getsockname()]}


async def _run(
    site: SiteFile,
    folder: Path | None,
    tasks: socket.socket,
    door: socket.socket,
    watched: Begin | None,
) -> None:
    secret = secrets.token_urlsafe(32)
    contact = str(folder / CONTACT) if folder else ""
    begins = NodeStart(site.server, site.ca, site.key, site.node_config, secret, contact)
    descriptor = tasks.fileno()
    told = asdict(begins) | {"socket": descriptor}
    executor = _executor(site, Runtime(tasks.getsockname(), "", "", secret), door)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with asyncio.TaskGroup() as group:
        kept = [
            group.create_task(
                keep_running(
                    "the SuperNode",
                    lambda: start(SUPERNODE, told, keep=(descriptor,)),
                    lambda: _what_is_wrong(site, folder),
                )
            ),
            group.create_task(
                keep_running(
                    "the executor", lambda: start(EXECUTOR, executor, keep=(door.fileno(),))
                )
            ),
            group.create_task(keep_telling()),
            group.create_task(start_every(VISIT_EVERY_S, partial(_visit, site), LONGEST_VISIT_S)),
        ]
        if watched:
            kept.append(group.create_task(keep_running("the status page", watched)))
        await ended.wait()
        for child in kept:
            child.cancel()


def _visit(site: SiteFile) -> subprocess.Popen[bytes]:
    return start(VISIT, {"site": site.model_dump(), "what": "hourly"})


def _asked(site: SiteFile, what: str, *, no_policy: bool = False) -> dict[str, str]:
    """What a process says that has a look and ends: problem and cure, or nothing."""
    told = {"site": site.model_dump(), "what": what, "no_policy": no_policy}
    try:
        return answered(VISIT, told, LONGEST_VISIT_S)
    except RunError as error:
        return {"problem": error.problem, "cure": error.cure}


def _what_is_wrong(site: SiteFile, folder: Path | None) -> str:
    """Why a SuperNode may have ended: Flower's own says little. It is kept for ``fedgrpo status``,
    and has nothing of prompts.
    """
    if not (said := _asked(site, "greet")):
        return "the server may count on its last process for a minute still"
    if folder:
        with contextlib.suppress(OSError):  # The log has it, too.
            replace_file(folder / SHUT_OUT, json.dumps(said).encode(), mode=0o600)
    return f"{said['problem']}\n  cure: {said['cure']}"
