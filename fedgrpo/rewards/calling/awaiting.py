"""Asynchronous rewards, awaited together on a loop that a thread keeps."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_OWN = threading.local()
"""The loop of each thread: clients of services, made once, live on the loop that they began on."""


class _Pipe:
    """A pipe in the place of the pair of sockets by which a loop is woken: the process that judges
    under prompt-level privacy can make no socket.
    """

    def __init__(self) -> None:
        self.ends = os.pipe()
        for end in self.ends:  # os.set_blocking makes a call that a judging process may not.
            fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self.ends[0]

    def recv(self, size: int) -> bytes:
        return os.read(self.ends[0], size)

    def send(self, data: bytes) -> int:
        return os.write(self.ends[1], data)

    def close(self) -> None:
        ends, self.ends = self.ends, (-1, -1)
        for end in ends:
            if end >= 0:
                os.close(end)


class _Loop(asyncio.SelectorEventLoop):
    """Woken through a pipe."""

    def _make_self_pipe(self) -> None:
        pipe: Any = _Pipe()
        self._ssock = self._csock = pipe
        self._internal_fds = 1
        self._add_reader(pipe.fileno(), self._read_from_self)  # type: ignore[attr-defined]


def awaited(
    waiting: Sequence[Awaitable[object]], timeout_s: float | None = None
) -> list[object | BaseException]:
    """Await all together.

    Parameters
    ----------
    waiting:
        What asynchronous functions returned.
    timeout_s:
        Longest time for each; None waits as long as it takes.

    Returns
    -------
    list
        What each came to, or what it raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _here(waiting, timeout_s)
    # A notebook's own loop is running in this thread.
    with ThreadPoolExecutor(max_workers=1) as other:
        return other.submit(_here, waiting, timeout_s).result()


def _here(
    waiting: Sequence[Awaitable[object]], timeout_s: float | None
) -> list[object | BaseException]:
    loop = getattr(_OWN, "loop", None)
    if loop is None or loop.is_closed() or _OWN.process != os.getpid():
        loop, _OWN.process = _Loop(), os.getpid()
        _OWN.loop = loop
    task = loop.create_task(_together(waiting, timeout_s))
    try:
        return list(loop.run_until_complete(task))
    except BaseException:
        task.cancel()
        raise


async def _together(
    waiting: Sequence[Awaitable[object]], timeout_s: float | None
) -> list[object | BaseException]:
    limited = (asyncio.wait_for(_one(each), timeout_s) for each in waiting)
    return list(await asyncio.gather(*limited, return_exceptions=True))


async def _one(waiting: Awaitable[object]) -> object:
    """An error that derives from BaseException alone would end the loop and not its own task."""
    try:
        return await waiting
    except (asyncio.CancelledError, Exception):
        raise
    except BaseException as error:
        return error
