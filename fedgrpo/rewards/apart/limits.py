"""What a process that judges may take of the machine."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.machine import free_memory

_SHARE = 0.8
"""Of the memory that is free when it has loaded."""
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_PR_SET_CHILD_SUBREAPER = 36


def keep_children() -> None:
    """Stay the parent of all that this process starts, in whatever session, so that it can be ended
    with it. On Linux alone.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(
            _PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3
        )


def limit_cpu(seconds: int) -> None:
    """End this process when it has computed for so long from now on."""
    until = math.ceil(time.process_time()) + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard < 0 else min(until, hard), hard))


def limit_memory() -> None:
    """Let what is too large raise MemoryError here, before the machine has none left.

    On Linux alone: elsewhere the system says neither what is free nor keeps to the limit.
    """
    with suppress(OSError, ValueError, IndexError):
        page = os.sysconf("SC_PAGE_SIZE")
        taken = int(Path("/proc/self/statm").read_text().split()[5]) * page
        resource.setrlimit(resource.RLIMIT_DATA, (taken + int(_SHARE * free_memory()),) * 2)


def leave_network() -> None:
    """Take this process, and those that it starts, off every network.

    It goes into a network namespace of its own, in which there is nothing. It reads and writes
    files as before: no sandbox for code that is not trusted.

    Raises
    ------
    RewardError
        If the kernel does not let it.
    """
    user, group = os.getuid(), os.getgid()
    try:
        if not sys.platform.startswith("linux"):
            raise OSError
        if ctypes.CDLL(None, use_errno=True).unshare(ctypes.c_int(_NEW_USER | _NEW_NET)) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        # The same user as before, so that files stay as they are.
        for name, text in (("setgroups", "deny"), ("uid_map", user), ("gid_map", group)):
            line = text if isinstance(text, str) else f"{text} {text} 1"
            Path(f"/proc/self/{name}").write_text(line)
    except OSError as error:
        raise RewardError(
            "reward.network = false: this machine's kernel does not let a process leave the "
            f"network ({type(error).__name__})",
            cure="allow unprivileged user namespaces, or set reward.network = true",
        ) from None
