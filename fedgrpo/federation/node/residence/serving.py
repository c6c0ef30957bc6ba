"""The model process: holds base model and adapter, and answers orders, one after the other.

The executor starts it when a message's process knocks at the door, a socket in a folder that no
other user can enter; it listens at nothing else. It ends when nobody has asked for a while, when
memory is short, or when an order is about something else than it holds; never while an order is
open, unless it is killed. Then the next one takes its place, and the process of the message decides
what that means.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from fedgrpo.federation.node.answers import log_failure, refusal_of
from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.node.residence.line import (
    Contribute,
    Contributed,
    Failed,
    GoneError,
    Hello,
    Here,
    Line,
    Prepare,
    Sized,
)
from fedgrpo.ground.machine import free_memory, is_own, whole_memory
from fedgrpo.ground.mishaps import pass_on_interrupt

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

Mishaps = Counter[str]

LOOK_S = 5.0
"""Between two looks at the machine's memory, while nobody asks."""
SHORT = 0.05
"""Share of the memory below which what is free is needed by others."""
_ABANDONED_S = 0.5
"""Between two looks whether anybody waits still."""


@dataclass
class Held:
    """What is loaded, by :func:`.identity.identity_of`; empty before the first order."""

    identity: str
    clients: LocalClients
    starting_s: float
    """Seconds that this process took to start."""
    loading_s: float = 0.0
    """Longest that it has prepared an order for: the first one loads everything."""


def serve(door: socket.socket, idle_s: float, asked: float) -> None:
    """Answer orders until nobody has asked for so long, memory is short, or somebody needs a
    process that holds something else.

    Parameters
    ----------
    door:
        At which orders come.
    idle_s:
        Seconds without one.
    asked:
        When this process was asked for, on the clock of :func:`time.monotonic`.
    """
    held = Held("", LocalClients(), time.monotonic() - asked)
    while (connection := _next(door, idle_s)) is not None:
        with Line(connection) as line:
            try:
                if not _is_meant(line, held):
                    LOG.info("other settings, prompts or files: the model is loaded again")
                    return
                _answer(line, held)
            except GoneError:
                continue


def _next(door: socket.socket, idle_s: float) -> socket.socket | None:
    """Who comes next; None if it is time to end."""
    until = time.monotonic() + idle_s
    while (left := until - time.monotonic()) > 0:
        door.settimeout(min(left, LOOK_S))
        with contextlib.suppress(TimeoutError):
            connection, _ = door.accept()
            connection.setblocking(True)
            if is_own(connection):
                return connection
            connection.close()
        if free_memory() < SHORT * whole_memory():
            told = {"code": "model-unloaded"}
            LOG.warning("memory is short: the model is unloaded until the next order", extra=told)
            return None
    LOG.info("no order for %.0f minutes: the model is unloaded until the next one", idle_s / 60)
    return None


def _is_meant(line: Line, held: Held) -> bool:
    wanted = line.hear(Hello).identity
    if held.identity not in ("", wanted):
        return False
    held.identity = wanted
    line.say(Here(os.getpid()))
    return True


def _answer(line: Line, held: Held) -> None:
    """Answer what is asked on a connection, until it is closed."""
    order: Prepare = line.hear(Prepare)
    line.say(_done(line, lambda _: _sized(held, order)))
    while True:
        line.say(_done(line, partial(_contributed, held.clients, order, line.hear(Contribute))))


def _done(line: Line, work: Callable[[Mishaps], Sized | Contributed]) -> object:
    """Do it, and say what came of it."""
    mishaps = Mishaps()
    try:
        with _ending_with(line.connection):
            return work(mishaps)
    except BaseException as error:  # Code that reads prompts raises what it likes.
        pass_on_interrupt(error)
        log_failure("the model process failed", error, refusal_of(error))
        return Failed(refusal_of(error), type(error).__name__, dict(mishaps))


def _sized(held: Held, order: Prepare) -> Sized:
    settings, config = order.read()
    began = time.monotonic()
    try:
        seconds = held.clients.prepare(settings, config, order.adapter, order.declared)
    finally:  # What is refused for its adapter, say, has loaded everything all the same.
        held.loading_s = max(held.loading_s, time.monotonic() - began)
    return Sized(seconds, held.starting_s + held.loading_s)


def _contributed(
    clients: LocalClients, order: Prepare, asked: Contribute, mishaps: Mishaps
) -> Contributed:
    settings, config = order.read()
    watch = Watch.at(config, settings, asked.watched, time.monotonic() + asked.left_s)
    try:
        client = clients(settings, config)
        release = client.contribute(asked.adapter, asked.read_plan(), asked.round, asked.key, watch)
    finally:
        mishaps.update(watch.mishaps)
    return Contributed(release, dict(mishaps))


@contextlib.contextmanager
def _ending_with(connection: socket.socket) -> Iterator[None]:
    """End this process if the other side is gone: nobody waits for what is computed meanwhile."""
    done = threading.Event()
    looking = threading.Thread(target=_look, args=(connection, done), daemon=True)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()


def _look(connection: socket.socket, done: threading.Event) -> None:
    while not done.wait(_ABANDONED_S):
        if _is_closed(connection):
            LOG.info("nobody waits for the order that is computed: the model process ends")
            os._exit(1)


def _is_closed(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
