"""What this machine, or the container around, gives: cores, memory, and whose its sockets are."""

from __future__ import annotations

import math
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

GROUP = Path("/sys/fs/cgroup")
"""Folder of all control groups that this process sees."""
_UNKNOWN = 8 * 2**30
"""Bytes that are taken to be there on another system than Linux, which says nothing without a
library.
"""
_NO_LIMIT = 2**62


def usable_cores(group: Path = GROUP) -> int:
    """Cores on which this process can compute at a time: what it may run on, and what its control
    group pays for. At least 1.

    A thread beyond a quota makes all of them wait: half a core too few costs less.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(int(min(allowed, paid_cores(group))), 1)


def paid_cores(group: Path = GROUP) -> float:
    """Cores that control groups pay for; infinite where none has a limit."""
    return min(_quota(each) for each in _groups(group))


def computing_threads() -> int:
    """Threads to compute on where nobody says how many: OMP_NUM_THREADS, or all usable cores."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else usable_cores()


def free_memory() -> int:
    """Bytes that can still be had."""
    left = [_said(group, "max") - _said(group, "current", 0) for group in _groups()]
    return min(_meminfo("MemAvailable"), *(max(0, most) for most in left))


def whole_memory() -> int:
    """Bytes that there are."""
    return min(_meminfo("MemTotal"), *(_said(group, "max") for group in _groups()))


def be_killed_first(score: int) -> None:
    """Where memory runs out, let the kernel end this process, and what it starts, before others.

    Parameters
    ----------
    score:
        From 1 to 1000, which comes before everything else.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score), "ascii")


def is_own(connection: socket.socket) -> bool:
    """Whether this user's process is at the other end of a Unix socket, or listened there.

    Adversary: other users of the machine, where the socket's folder was cleaned away and made by
    one of them. On systems other than Linux, which say it in other ways, the folder's mode alone
    keeps them out.
    """
    if not sys.platform.startswith("linux"):
        return True
    size = struct.calcsize("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", found)[1]) == os.geteuid()


def _meminfo(name: str) -> int:
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        return 1024 * int(text.partition(f"{name}:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return _UNKNOWN


def _groups(top: Path = GROUP) -> list[Path]:
    """Control groups that this process is in: a service's own, and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    inner = top / own.lstrip("/")
    return [inner, *(group for group in inner.parents if group.is_relative_to(top))]


def _quota(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text("ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _said(group: Path, name: str, otherwise: int = _NO_LIMIT) -> int:
    try:
        return int((group / f"memory.{name}").read_text("ascii"))
    except (OSError, ValueError):
        return otherwise
