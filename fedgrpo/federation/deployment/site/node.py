"""What ``fedgrpo node`` is: a SuperNode, and an executor that runs the installed app.

Between the two is a Unix socket in a folder of mode 0700, and a secret: this node listens at no
port, so other users of the machine have nothing to connect to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fedgrpo.federation.deployment.children import answered, keep_running, start, start_every
from fedgrpo.federation.deployment.executor.apps import RESIDENT
from fedgrpo.federation.deployment.flower_internals.runtime import Runtime
from fedgrpo.federation.deployment.flower_internals.servers import NodeStart
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.deployment.units import keep_telling
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.run_files import alone
from fedgrpo.settings import Settings
from fedgrpo.site.node_folder import RUNNING, STATE, node_folder, owned_folder

LOG = logging.getLogger(__name__)

SUPERNODE = "fedgrpo.federation.deployment.site.supernode"
EXECUTOR = "fedgrpo.federation.deployment.executor.tasks"
VISIT = "fedgrpo.federation.deployment.doctor.visit"
VISIT_EVERY_S, LONGEST_VISIT_S = 3600.0, 600.0


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
    if said := _asked(site, "start", no_policy=no_policy):
        raise RunError(said["problem"], cure=said["cure"])
    if no_policy:
        LOG.warning("no policy is asked for: without one this node refuses every order")
    with (
        _alone(site),
        tempfile.TemporaryDirectory(prefix="fedgrpo-") as folder,
        _socket(Path(folder) / "node") as tasks,
        _socket(Path(folder) / "model") as door,
    ):
        asyncio.run(_run(site, tasks, door))


@contextmanager
def _alone(site: SiteFile) -> Iterator[None]:
    """Keep a second node from the folder of this one. An app of the site's own may have none."""
    if "prompts" not in site.node_config and STATE not in site.node_config:
        yield
        return
    folder = node_folder(site.node_config, Settings())
    assert folder
    with alone(owned_folder(folder), RUNNING, cure="end that node: one node a folder"):
        yield


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


async def _run(site: SiteFile, tasks: socket.socket, door: socket.socket) -> None:
    secret = secrets.token_urlsafe(32)
    begins = NodeStart(site.server, site.ca, site.key, site.node_config, secret)
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
                    lambda: _what_is_wrong(site),
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


def _what_is_wrong(site: SiteFile) -> str:
    """Why a SuperNode may have ended: Flower's own says little."""
    if said := _asked(site, "greet"):
        return f"{said['problem']}\n  cure: {said['cure']}"
    return "the server may count on its last process for a minute still"
