"""Reward functions that keep, write, break and hang, each for the test that says they cannot.

`act` does what the column `act` names and rewards 1 if it was refused, 0 if it was done.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHARED = mmap.mmap(-1, 4096)
COUNTER = multiprocessing.Value("i", 0)
SOCKETS = socket.socketpair()
THIS_FILE = open(__file__)  # noqa: SIM115 - kept open on purpose

_seen: set[str] = set()
_kept = {"calls": 0}


def novelty(completions: Sequence[Any], **_: object) -> list[float]:
    """Reward what nobody has said before, in any group."""
    rewards = []
    for completion in map(str, completions):
        rewards.append(float(completion not in _seen))
        _seen.add(completion)
    return rewards


def calls(completions: Sequence[Any], **_: object) -> list[float]:
    """Reward the number of calls so far, kept in every place a module has."""
    _kept["calls"] += 1
    SHARED[0] += 1
    COUNTER.value += 1
    os.environ["CALLS"] = str(int(os.environ.get("CALLS", "0")) + 1)
    kept = _kept["calls"] + SHARED[0] + COUNTER.value + int(os.environ["CALLS"])
    return [float(kept)] * len(completions)


def chance(completions: Sequence[Any], **_: object) -> list[float]:
    """Reward what the global generators and the order of a set say."""
    order = list({f"word {i}" for i in range(20)}).index("word 3")
    return [random.random() + np.random.random() + order for _ in completions]


class Lengths:
    """Reward lengths, as a class."""

    def __call__(self, completions: Sequence[Any], **_: object) -> list[float]:
        return [float(len(completion)) for completion in completions]


def nested(completions: Sequence[Any], meta: Sequence[Any], **_: object) -> list[float | None]:
    """Reward what a column of any JSON kind says."""
    return [None if m is None else float(m["scores"][0] + len(m["name"])) for m in meta]


class DerivedError(RuntimeError):
    """Its name is no secret, but a reward could choose one that is."""


def act(completions: Sequence[Any], act: Sequence[str], **_: object) -> list[Any]:
    """Do what the column names."""
    name, _, argument = act[0].partition(" ")
    try:
        done = ACTS[name](argument)
    except OSError:
        return [1.0] * len(completions)
    return done if isinstance(done, list) else [0.0] * len(completions)


def _for_ever(_: str) -> None:
    while True:
        pass


def _fork(_: str) -> None:
    if os.fork() == 0:
        time.sleep(60)


def _eat(_: str) -> None:
    kept = []
    while True:
        kept.append(bytearray(10**7))


def _raise(_: str) -> None:
    raise type("patient Zyx", (DerivedError,), {})("patient Zyx")


def _syscall(argument: str) -> None:
    numbers = [int(part) for part in argument.split()]
    library = ctypes.CDLL(None, use_errno=True)
    done = library.syscall(*[ctypes.c_long(number) for number in numbers])
    if done < 0 and ctypes.get_errno() == errno.EPERM:
        raise PermissionError


def _thread(_: str) -> list[float]:
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(3.0))
    thread.start()
    thread.join()
    return found * 2


def _outlive(_: str) -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def _refuse() -> None:
    raise PermissionError


def _resident(_: str) -> None:
    memory, pages = mmap.mmap(-1, 4096), ctypes.c_ubyte()
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    library = ctypes.CDLL(None, use_errno=True)
    if library.mincore(ctypes.c_void_p(address), ctypes.c_size_t(4096), ctypes.byref(pages)) != 0:
        raise PermissionError


ACTS: dict[str, Callable[[str], Any]] = {
    "nothing": lambda _: [5.0, 5.0],
    "write": lambda path: open(path, "w").close(),
    "append": lambda path: open(path, "a").close(),
    "update": lambda path: open(path, "r+").close(),
    "remove": os.unlink,
    "rename": lambda path: os.rename(path, f"{path}.moved"),
    "link": lambda path: os.link(path, f"{path}.link"),
    "symlink": lambda path: os.symlink(path, f"{path}.link"),
    "mkdir": lambda path: os.mkdir(f"{path}.folder"),
    "mode": lambda path: os.chmod(path, 0o600),
    "times": lambda path: os.utime(path, (0, 0)),
    "attribute": lambda path: os.setxattr(path, "user.seen", b"1"),
    "truncate": lambda path: os.truncate(path, 0),
    "fifo": lambda path: os.mkfifo(f"{path}.fifo"),
    "lock": lambda path: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX),
    "record_lock": lambda path: fcntl.lockf(os.open(path, os.O_RDONLY), fcntl.LOCK_SH),
    "unnamed": lambda _: os.open("/tmp", os.O_TMPFILE | os.O_WRONLY),
    "shared_file": lambda _: os.open("/dev/shm/seen", os.O_CREAT | os.O_RDWR),
    "tcp": lambda _: socket.socket(),
    "unix": lambda _: socket.socket(socket.AF_UNIX),
    "inherited": lambda _: SOCKETS[0].send(b"seen"),
    "inherited_file": lambda _: THIS_FILE.read(1),
    "fork": _fork,
    "outlive": _outlive,
    "signal_parent": lambda _: os.kill(os.getppid(), signal.SIGUSR1),
    "signal_group": lambda _: os.killpg(0, signal.SIGUSR1),
    "priority": lambda _: os.setpriority(os.PRIO_PROCESS, os.getppid(), 5),
    "syscall": _syscall,
    "for_ever": _for_ever,
    "sleep": lambda _: time.sleep(600),
    "exit": lambda _: os._exit(0),
    "system_exit": lambda _: sys.exit(3),
    "crash": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "eat": _eat,
    "raise": _raise,
    "raise_known": lambda _: {}["patient Zyx"],
    "signal_itself": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "forge": lambda _: os.write(3, b"\x00" + b"\x00" * 10**5) and [1.0, 1.0],
    "few": lambda _: [1.0],
    "infinite": lambda _: [1.0, float("inf")],
    "text": lambda _: ["patient", "Zyx"],
    "silent": lambda _: [None, None],
    "print": lambda text: print(text) or print(text, file=sys.stderr) or [7.0, 7.0],
    "read": lambda path: [float(len(Path(path).read_text())), 0.0],
    "list": os.listdir,
    "look": os.stat,
    "access": lambda path: None if os.access(path, os.R_OK) else _refuse(),
    "link_text": lambda _: os.readlink("/proc/self"),
    "resident": _resident,
    "others_clock": lambda _: time.clock_gettime((~os.getppid() << 3) | 2),
    "thread": _thread,
    "import": lambda name: [float(len(__import__(name).__name__)), 0.0],
}


async def later(completions, what=("",), **_):
    """Wait, and wake the loop from a thread."""
    await asyncio.sleep(0.01)
    longer = await asyncio.get_running_loop().run_in_executor(None, max, map(len, completions))
    if what[0] == "raise":
        raise ValueError(completions[0])
    return [float(longer) for _ in completions]


def told(completions, trainer_state, log_metric, log_extra):
    """Ask for all that TRL passes."""
    log_metric("calls", 1.0)
    log_extra("texts", completions)
    return [float(trainer_state.global_step) for _ in completions]
