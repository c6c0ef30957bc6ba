"""Where the processes of messages find a model process, and what starts one."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import time

from fedgrpo.federation.deployment.children import end, start

LOG = logging.getLogger(__name__)

MODEL_PROCESS = "fedgrpo.federation.deployment.executor.model_process"


class Door:
    """A listening socket that this process inherited, and the one process that answers at it.

    Parameters
    ----------
    descriptor:
        Of the socket.
    idle_s:
        After which the process ends.
    """

    def __init__(self, descriptor: int, idle_s: float) -> None:
        self._descriptor, self._idle_s = descriptor, idle_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def waiting(self) -> tuple[int, ...]:
        """Descriptors at which somebody may knock to whom nobody would answer."""
        return () if self._is_alive() else (self._descriptor,)

    def look(self) -> None:
        """Start a process if somebody waits for one."""
        if self.waiting and select.select(self.waiting, [], [], 0)[0]:
            told = {"door": self._descriptor, "idle_s": self._idle_s, "asked": time.monotonic()}
            self._process = start(MODEL_PROCESS, told, keep=(self._descriptor,))

    def leave(self) -> None:
        """In a forked process: hold on to nothing that tells the other one that this lives."""
        if self._process and self._process.stdin:
            self._process.stdin.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process:
            end(self._process)

    def _turn_away(self) -> None:
        """Hang up on who waits, and so counts it as a death: one that dies before it answers would
        else be started for him for ever.
        """
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as door:
            while select.select([door], [], [], 0)[0]:
                door.accept()[0].close()

    def _is_alive(self) -> bool:
        if self._process is None:
            return False
        if (code := self._process.poll()) is None:
            return True
        if code:
            LOG.warning("the model process died (code %d)", code, extra={"code": "model-died"})
            self._turn_away()
        end(self._process)
        self._process = None
        return False
