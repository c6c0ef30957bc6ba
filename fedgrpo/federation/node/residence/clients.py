"""Clients that compute in the model process: what a message's own process knows of them.

It imports no torch. Whether to train, the charge, the release that is kept and the time of the
answer are this process's as ever; the other one is asked how long an order can take, and to
contribute, and may die of either.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgrpo.federation.node.clients.interfaces import ElsewhereError
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.node.clock import LateError
from fedgrpo.federation.node.residence.identity import identity_of
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
from fedgrpo.ground.errors import ModelError, RunError
from fedgrpo.ground.machine import is_own
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import Declared

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

_MEETINGS = 4
"""Processes that may turn out to hold something else, or to be about to end."""
_PREPARATIONS = 2
"""Processes that may die while they load."""
_DEATHS = 8
"""Processes that may die of one order whose answer has no time."""
_DIED = "the model process died"


class ResidentClients:
    """Asks the model process before the charge, and makes clients that ask it after that.

    Parameters
    ----------
    door:
        Path of the socket at which the executor has a model process started for whoever comes.
    """

    def __init__(self, door: Path) -> None:
        self._door = door
        self._line: Line | None = None
        self._pid, self._until = 0, math.inf
        self._asked: tuple[str, Prepare] | None = None

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> ResidentClients:
        """See :data:`fedgrpo.federation.node.clients.interfaces.ClientFactory`. It serves the
        settings for which it has prepared.
        """
        return self

    def prepare(
        self,
        settings: Settings,
        node_config: Mapping[str, Scalar],
        adapter: AdapterState,
        declared: Declared,
    ) -> float:
        """See :class:`fedgrpo.federation.node.clients.interfaces.PreparingFactory`.

        An order is sized as if the process had to load everything first, whether or not it has:
        else the code of a refusal would tell of one that had died. A process that comes to no end,
        or has found the work to take too long, is ended: what it has measured, beside others that
        loaded perhaps, shall not refuse every order to come.

        Raises
        ------
        ElsewhereError
            With the code of whatever failed there.
        ModelError
            If the process dies of it.
        RunError
            If another user listens at the door.
        """
        began = time.monotonic()
        self._until = began + declared.work_s
        identity = identity_of(settings, node_config, declared)
        self._asked = identity, Prepare.of(settings, node_config, adapter, declared)
        try:
            sized = self._prepared()
        except LateError:
            return math.inf
        now = time.monotonic()
        seconds = sized.seconds + max(0.0, sized.loading_s - (now - began))
        if seconds > self._until - now:
            LOG.warning(
                "an order can take %.0f s here, too long: the next one is timed anew",
                seconds,
                extra={"code": "order-long"},
            )
            self._end()
        return seconds

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> NDArray[np.float64]:
        """See :class:`fedgrpo.federation.node.clients.interfaces.Client`.

        A process that dies is replaced by one that computes again, if the whole time is left that
        the order can take. One that is late is ended.

        Raises
        ------
        LateError
            If there is no such time.
        ElsewhereError
            With what failed, for the site's own people.
        """
        self._until = watch.deadline
        for _ in range(_DEATHS):
            order = Contribute.of(adapter, plan, round, key, watch.plan, watch.left())
            try:
                return self._contributed(order, watch)
            except GoneError:
                watch.mishaps[_DIED] += 1
                LOG.warning("%s in round %d", _DIED, round, extra={"code": "model-died"})
            self.close()
            if self._prepared().seconds > watch.left():
                raise LateError
        raise LateError

    def close(self) -> None:
        """Tell the model process that no order is open."""
        if self._line:
            self._line.close()
        self._line = None

    def _end(self) -> None:
        """End the process, which may listen to nobody."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def _prepared(self) -> Sized:
        assert self._asked, "an order is prepared first"
        identity, order = self._asked
        for _ in range(_PREPARATIONS):
            try:
                self._meet(identity)
                sized: Sized = self._ask(order, Sized)
                return sized
            except GoneError:
                told = {"code": "model-died"}
                LOG.warning("%s before it had loaded everything", _DIED, extra=told)
                self.close()
        raise ModelError(
            f"{_DIED} {_PREPARATIONS} times before it had loaded everything",
            cure="see the lines above; is there enough memory for the model?",
        )

    def _contributed(self, order: Contribute, watch: Watch) -> NDArray[np.float64]:
        """Raises GoneError if the process died, LateError if it was ended."""
        done: Contributed = self._ask(order, Contributed, mishaps=watch.mishaps)
        watch.mishaps.update(done.mishaps)
        self.close()
        return done.release

    def _meet(self, identity: str) -> None:
        """Connect to a process that has loaded this, or nothing yet; raises LateError if none is
        there in time.
        """
        for _ in range(_MEETINGS):
            self.close()
            self._line = Line(connected(self._door))
            self._line.allow(self._until - time.monotonic())
            with contextlib.suppress(GoneError):
                try:
                    self._line.say(Hello(identity))
                    self._pid = self._line.hear(Here).pid
                except TimeoutError:
                    raise LateError from None
                return
        raise GoneError

    def _ask(self, order: object, kind: type, mishaps: dict[str, int] | None = None) -> Any:
        """Raises GoneError if the process died, LateError if it was late and so was ended."""
        assert self._line
        self._line.allow(self._until - time.monotonic())
        try:
            self._line.say(order)
            answer = self._line.hear(kind, Failed)
        except TimeoutError:
            self._end()
            raise LateError from None
        if not isinstance(answer, Failed):
            return answer
        if mishaps is not None:
            mishaps.update(answer.mishaps)
        raise ElsewhereError(answer.kind, code=answer.code)


def connected(door: Path) -> socket.socket:
    """A connection to whoever answers at a door; raises RunError if it is another user's."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(door))
    if is_own(connection):
        return connection
    connection.close()
    raise RunError(
        f"another user of the machine listens at {door}",
        cure="end the node, and start it again: its folder was removed, and made by somebody else",
    )
