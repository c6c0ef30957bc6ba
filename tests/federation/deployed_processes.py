"""The processes of a deployed federation, to be found and killed."""

from __future__ import annotations

import time

import psutil

from fedgrpo.federation.deployment.flower_internals.control import list_nodes, nodes_by_key
from tests.federation.deployment.operated import until

ROOM = "fedgrpo.federation.deployment"
EXECUTOR, MODEL = "executor.tasks", "executor.model_process"
SUPERNODE, SUPERLINK = "site.supernode", "operator.superlink"


def running(started, module, but=(), *, forked=False):
    """A process that runs a module among those of a command, or None.

    What an executor has forked, for a message or a run, looks like the executor itself; so does
    what it leaves when it is killed. Of the processes ``but`` it is none.
    """
    for process in psutil.Process(started.pid).children(recursive=True):
        try:
            if process in but or process.cmdline()[2:] != [f"{ROOM}.{module}"]:
                continue
            if forked == (process.parent().cmdline()[2:] == process.cmdline()[2:]):
                return process
        except (psutil.Error, AttributeError):
            continue
    return None


def known_until(federation, site):
    """Unix time until which the server takes a site to be there; 0 where nobody can say."""
    try:
        answer = federation.server.control("list-nodes", list_nodes())
        nodes = nodes_by_key(answer.content) if answer.status_code == 200 else {}
    except Exception:
        return 0.0
    return next((node.until for node in nodes.values() if node.number == site.node), 0.0)


def until_back(federation, site, before, patience_s):
    """Wait until the server has heard of a site again; returns the seconds that it took."""
    began = time.monotonic()
    until(lambda: known_until(federation, site) > before, "a site's return", patience_s)
    return time.monotonic() - began
