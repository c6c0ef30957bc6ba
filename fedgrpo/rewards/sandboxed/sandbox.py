"""A process that can leave nothing behind: limits, closed descriptors and a filter of its calls."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.sandboxed.calls import CLONE_SIBLING, filter_program, is_known

if sys.platform != "win32":
    import resource

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CLONE_CALL = {"x86_64": 56, "aarch64": 220}
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_SECCOMP_GET_ACTION_AVAIL = 2
_RETURN_ERROR = 0x00050000
_SIGKILL = 9
_OPEN_FILES = 256
"""How many a child may have, pipes and copies, beyond those of its template."""


@dataclass(frozen=True)
class WorkerLimits:
    """What one prompt's group may cost, over all functions that judge it in the worker.

    Public figures: they follow from the settings or the site's policy and never from prompts.

    Raises
    ------
    RewardError
        If one is not positive.
    """

    cpu_s: int = 10
    """CPU seconds."""
    wall_s: float = 20.0
    """Seconds."""
    memory_mb: int = 1024
    """Megabytes of address space above what the functions take when they are loaded."""

    def __post_init__(self) -> None:
        for name in ("cpu_s", "wall_s", "memory_mb"):
            if not getattr(self, name) > 0:
                raise RewardError(
                    f"a reward's limit {name} is {getattr(self, name)}", cure="make it positive"
                )


@cache
def sandbox_available() -> bool:
    """Tell whether the kernel can forbid a process of this user to leave anything behind.

    Linux with seccomp filters, on x86-64 or aarch64; nobody's rights are needed for that.
    """
    machine = platform.machine()
    if not sys.platform.startswith("linux") or not is_known(machine) or sys.maxsize < 2**32:
        return False
    action = ctypes.c_uint32(_RETURN_ERROR)
    call, ask = ctypes.c_long(_SECCOMP_CALL[machine]), ctypes.c_uint(_SECCOMP_GET_ACTION_AVAIL)
    return bool(ctypes.CDLL(None).syscall(call, ask, ctypes.c_uint(0), ctypes.byref(action)) == 0)


def die_with(parent: int) -> None:
    """Let this process be killed when the process with this number, which forked it, ends."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def fork_beside() -> int:
    """Fork a process whose parent is this one's parent, which alone learns how it ends.

    No hook runs in it, neither Python's (``os.register_at_fork``) nor the C library's: this process
    has one thread, so no lock needs care. Returns 0 there, its number here.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    call = ctypes.c_long(_CLONE_CALL[platform.machine()])
    flags, zero = ctypes.c_ulong(CLONE_SIBLING), ctypes.c_ulong(0)
    number = int(_c_syscall()(call, flags, zero, zero, zero, zero))
    if number < 0:
        raise _error()
    return number


def hide() -> None:
    """Let no other process of this user look into this one, and leave no core.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    _limit(resource.RLIMIT_CORE, 0)
    # A core file may go to a program, which limits of its size do not stop.
    _prctl(_PR_SET_DUMPABLE, 0)


def count_threads() -> int:
    """Count this process's threads, whoever started them."""
    return len(os.listdir("/proc/self/task"))


@dataclass(frozen=True)
class Confinement:
    """What a process has ready for those that it forks: each of them then needs few steps."""

    cpu_s: int
    """CPU seconds of one."""
    address_space: int
    """Bytes of one."""
    descriptors: int
    """All descriptors are below."""
    program: _FilterProgram
    """Filter of its system calls."""


def confine(limits: WorkerLimits, keep: int) -> Confinement:
    """Forbid this process, for the rest of its life, what its children could know one another by.

    Called when everything is loaded: the memory limit is on top of what is taken by then. No file
    is open but one and none can be opened; no socket can be made, no file written, no
    rights gained, no core left. It can fork with :func:`fork_beside`.

    Parameters
    ----------
    limits:
        Of one group.
    keep:
        Descriptor that stays open. 0, 1 and 2 lead nowhere.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    space = _address_space() + limits.memory_mb * 10**6
    close_all_but(keep)
    descriptors = keep + _OPEN_FILES
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, descriptors)
    hide()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    machine = platform.machine()
    own = _FilterProgram.of(filter_program(machine, is_template=True))
    children = _FilterProgram.of(filter_program(machine))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, own)
    return Confinement(limits.cpu_s, space, descriptors, children)


def leave_nothing(confinement: Confinement) -> None:
    """Forbid this process, for the rest of its life, everything that would outlive it.

    It can open no file, make no socket, shared memory, message queue, lock, signal or process, and
    use what is open. It can start threads. No crash writes its memory to disk. Memory that the
    parent *shares* with this process is not covered: see
    :func:`fedgrpo.rewards.sandboxed.shared_memory.make_private`.

    Parameters
    ----------
    confinement:
        The parent's.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    _limit(resource.RLIMIT_CPU, confinement.cpu_s)
    _limit(resource.RLIMIT_AS, confinement.address_space)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, confinement.program)


def keep_only(descriptor: int, confinement: Confinement) -> None:
    """Close all descriptors but one, which is 3 from now on, and 0, 1 and 2."""
    os.dup2(descriptor, 3)
    os.closerange(4, confinement.descriptors)


class _FilterProgram(ctypes.Structure):
    """The kernel's ``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    @classmethod
    def of(cls, program: bytes) -> _FilterProgram:
        return cls(len(program) // 8, program)


def close_all_but(keep: int) -> None:
    """Close every descriptor but one; the standard ones lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    last = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, keep)
    os.closerange(keep + 1, last + 1)


def _limit(what: int, value: int) -> None:
    """Lower a limit for good."""
    hard = resource.getrlimit(what)[1]
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (least, least))


def _address_space() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _c_syscall() -> Callable[..., int]:
    # Keeps Python's lock while it is called: the forked process must go on holding it.
    function = ctypes.PyDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


@cache
def _c_prctl() -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return function


def _prctl(option: int, value: int, program: _FilterProgram | None = None) -> None:
    third = ctypes.byref(program) if program is not None else ctypes.c_ulong(0)
    arguments = (ctypes.c_ulong(value), third, ctypes.c_ulong(0), ctypes.c_ulong(0))
    if _c_prctl()(ctypes.c_int(option), *arguments) != 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
