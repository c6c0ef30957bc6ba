"""The system calls that a reward may make while it judges, as a seccomp filter program.

An allow-list: whatever leaves a trace behind the process's end is missing from it (files, sockets,
shared memory, message queues, keys, signals, processes of its own), whatever finds such a trace
(opening and looking at files), and every call that a later kernel adds. See seccomp(2) and, for the
instructions, the kernel's ``Documentation/networking/filter.rst``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

# Names of calls by their numbers on x86-64 and on aarch64 (-1: it does not exist there).
_PLAIN = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, preadv 295 69, lseek 8 62,
close 3 57, close_range 436 436, dup 32 23, dup2 33 -1, dup3 292 24, pipe 22 -1, pipe2 293 59,
fstat 5 80, sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212,
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, brk 12 214, madvise 28 233,
membarrier 324 283,
futex 202 98, set_robust_list 273 99, rseq 334 293, set_tid_address 218 96, arch_prctl 158 -1,
sched_yield 24 124, sched_get_priority_max 146 125, sched_get_priority_min 147 126, getcpu 309 168,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132,
rt_sigpending 127 136, rt_sigsuspend 130 133, rt_sigtimedwait 128 137, pause 34 -1, alarm 37 -1,
setitimer 38 103, getitimer 36 102, restart_syscall 219 128,
poll 7 -1, ppoll 271 73, select 23 -1, pselect6 270 72,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -1, epoll_pwait 281 22, eventfd2 290 19,
nanosleep 35 101, gettimeofday 96 169, time 201 -1, times 100 153, getrusage 98 165,
sysinfo 99 179, uname 63 160, getcwd 79 17,
getrlimit 97 163, getuid 102 174, geteuid 107 175,
getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150,
getrandom 318 278, exit 60 93, exit_group 231 94
"""
_GUARDED = """
clone 56 220, ioctl 16 29, fcntl 72 25, prctl 157 167, prlimit64 302 261,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115,
sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120
"""
# Numbers of processes count those before, so all are 0.
_ZERO = """
getpid 39 172, gettid 186 178, getppid 110 173, getpgid 121 155, getpgrp 111 -1, getsid 124 156
"""
# glibc falls back to clone, whose flags a filter can read, only if there is no clone3.
_ABSENT = "clone3 435 435, openat2 437 437"

_ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}
"""Kernel's number of the architecture (AUDIT_ARCH), and its column above."""

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_RUN = 16
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_CLONE_THREAD = 0x10000
CLONE_SIBLING = 0x8000 | 17
"""CLONE_PARENT and SIGCHLD: a process beside this one."""
_OTHERS_CLOCK = 0x80000000
"""Marks the clock of a process or of a device."""
_TERMINAL_ASKS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX."""
_DESCRIPTOR_ASKS = (0, 1, 2, 3, 4, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: no lock, no owner, no lease."""
_PROCESS_ASKS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, which glibc's allocator uses."""
_TEMPLATE_ASKS = (*_PROCESS_ASKS, 1, 22)
"""Also PR_SET_PDEATHSIG and PR_SET_SECCOMP."""


_CLOCKS = ("clock_gettime", "clock_getres", "clock_nanosleep")
_SCHEDULES = ("sched_getaffinity", "sched_getparam", "sched_getscheduler")


class _Step(NamedTuple):
    """One instruction: code, jump if true, jump if false, operand."""

    code: int
    if_true: int
    if_false: int
    operand: int


_YES, _NO = _Step(_RETURN, 0, 0, _ALLOW), _Step(_RETURN, 0, 0, _ERRNO | _EPERM)


def is_known(machine: str) -> bool:
    """Tell whether there is a table for a machine, as ``platform.machine()`` names it."""
    return machine in _ARCHITECTURES


def filter_program(machine: str, *, is_template: bool = False) -> bytes:
    """Write the filter of a machine, as ``platform.machine()`` names it.

    Parameters
    ----------
    machine:
        Its name.
    is_template:
        For a process that forks those which judge: it may do that, lower their limits, and knows
        processes' numbers, on top of what they may.

    Returns
    -------
    bytes
        Instructions of eight bytes, as ``struct sock_filter`` has them.
    """
    architecture, column = _ARCHITECTURES[machine]
    steps = [
        _Step(_LOAD, 0, 0, _ARCHITECTURE_AT),
        _Step(_EQUAL, 1, 0, architecture),
        _Step(_RETURN, 0, 0, _KILL),
        _Step(_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in _numbers(_ABSENT, column).values():
        steps += [_Step(_EQUAL, 0, 1, number), _Step(_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    guards = {**_guards(), **(_template_guards() if is_template else {})}
    for name, number in _numbers(_GUARDED, column).items():
        steps += [_Step(_EQUAL, 0, len(guards[name]), number), *guards[name]]
    plain, zero = _numbers(_PLAIN, column), _numbers(_ZERO, column)
    if is_template:
        plain, zero = {**plain, **zero}, {}
    for number in zero.values():
        steps += [_Step(_EQUAL, 0, 1, number), _Step(_RETURN, 0, 0, _ERRNO)]
    steps += [*_listed(sorted(plain.values())), _NO]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _listed(numbers: Sequence[int]) -> Iterator[_Step]:
    """Allow these numbers, in ascending order.

    The kernel tries the filter on every number when it is installed, once for each prompt, so runs
    that end below a number are skipped as a whole.
    """
    for start in range(0, len(numbers), _RUN):
        run = numbers[start : start + _RUN]
        yield _Step(_ABOVE, len(run) + 2, 0, run[-1])
        for i, number in enumerate(run):
            yield _Step(_EQUAL, len(run) - i, 0, number)
        yield from (_NO, _YES)


def _guards() -> Mapping[str, list[_Step]]:
    """What decides on a call by its arguments; each ends in a return on every path."""
    return {
        "clone": [_argument(0), _Step(_ANY_BIT, 0, 1, _CLONE_THREAD), _YES, _NO],
        "ioctl": _one_of(1, _TERMINAL_ASKS),
        "fcntl": _one_of(1, _DESCRIPTOR_ASKS),
        "prctl": _one_of(0, _PROCESS_ASKS),
        # Its own limits, and reading, not setting: both halves of the pointer to new ones are zero.
        "prlimit64": [
            *(_argument(0), _Step(_EQUAL, 1, 0, 0), _NO),
            *(_argument(2), _Step(_EQUAL, 1, 0, 0), _NO),
            *(_argument(2, upper=True), _Step(_EQUAL, 1, 0, 0), _NO, _YES),
        ],
        **dict.fromkeys(_CLOCKS, _none_of(0, _OTHERS_CLOCK)),
        **dict.fromkeys(_SCHEDULES, _one_of(0, (0,))),
    }


def _template_guards() -> Mapping[str, list[_Step]]:
    return {
        "clone": [
            *(_argument(0), _Step(_EQUAL, 0, 1, CLONE_SIBLING), _YES),
            *(_Step(_ANY_BIT, 0, 1, _CLONE_THREAD), _YES, _NO),
        ],
        "prctl": _one_of(0, _TEMPLATE_ASKS),
        "prlimit64": _one_of(0, (0,)),
    }


def _one_of(index: int, values: tuple[int, ...]) -> list[_Step]:
    tests = [step for value in values for step in (_Step(_EQUAL, 0, 1, value), _YES)]
    return [_argument(index), *tests, _NO]


def _none_of(index: int, bits: int) -> list[_Step]:
    return [_argument(index), _Step(_ANY_BIT, 0, 1, bits), _NO, _YES]


def _argument(index: int, *, upper: bool = False) -> _Step:
    """Load half an argument; both architectures put the lower half first."""
    return _Step(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index + 4 * upper)


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [entry.split() for entry in table.replace("\n", " ").split(",")]
    return {row[0]: int(row[column]) for row in rows if int(row[column]) >= 0}
