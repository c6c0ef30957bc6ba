"""What this machine, or the container around, gives: cores and memory."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")
_UNKNOWN = 8 * 2**30
"""Bytes that are taken to be there on another system than Linux, which says nothing without a
library.
"""
_NO_LIMIT = 2**62


def usable_cores() -> int:
    """Cores on which this process can compute at a time: what it may run on, and what its control
    group pays for. At least 1.

    A thread beyond a quota makes all of them wait: half a core too few costs less.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    for group in _groups():
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text("ascii").split()
            allowed = min(allowed, int(quota) // int(period))
    return max(allowed, 1)


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


def _meminfo(name: str) -> int:
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        return 1024 * int(text.partition(f"{name}:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return _UNKNOWN


def _groups() -> list[Path]:
    """Control groups that this process is in: a service's own, and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    inner = _GROUP / own.lstrip("/")
    return [inner, *(group for group in inner.parents if group.is_relative_to(_GROUP))]


def _said(group: Path, name: str, otherwise: int = _NO_LIMIT) -> int:
    try:
        return int((group / f"memory.{name}").read_text("ascii"))
    except (OSError, ValueError):
        return otherwise
