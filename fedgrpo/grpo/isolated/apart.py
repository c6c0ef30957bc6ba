"""Work on many items, one after the other, in a process apart: one that takes too long costs itself
alone.

A loop inside of a chat template or of a tokenizer's expression cannot be ended from within. So a
process is forked from this one, with everything loaded, and writes an answer for each item; the
parent kills it over an item that is above its limit, and forks another for those behind. Time is
counted as the child's own on a CPU, so that what else a machine does costs no item.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fedgrpo.rewards.sandboxed.sandbox import close_all_but, die_with

if sys.platform != "win32":
    import resource

Work = Callable[[int], bytes]
"""Answers for the item of a number; it raises nothing."""

_START_S, _STARTS = 10.0, 3
"""Longest that a child may take to begin, and how often one is tried: a lock that another thread
held in the moment of the fork is held in it for ever.
"""
_STEP_S = 0.005
"""Between two looks at a child's clock."""
_MEMORY = 2**31
"""Bytes that a child may take beyond those that it is forked with."""


@dataclass(frozen=True)
class Limits:
    """What items may cost: public figures."""

    item_s: float
    """CPU seconds of one."""
    all_s: float
    """Seconds of all together, in which ``item_s`` for each should find room: behind it items are
    left out, at the end of their order."""

    @property
    def item_wall_s(self) -> float:
        """Seconds after which an item that waits for something is given up."""
        return 10 * self.item_s + 1.0


def can_fork() -> bool:
    """Tell whether a child's clock can be read, and a child be kept from outliving this process."""
    return sys.platform.startswith("linux") and os.path.exists("/proc/self/schedstat")


def answers_apart(work: Work, count: int, limits: Limits) -> list[bytes | None] | None:
    """Answers for the items 0 to ``count`` - 1, None for one that is above its limit or at which
    the child dies twice. None in place of them all if no child can be had at all.
    """
    end, answers, died_at = time.monotonic() + limits.all_s, list[bytes | None](), -1
    while len(answers) < count and time.monotonic() < end:
        child = _started(work, len(answers), count)
        if child is None:
            break
        more, died = child.answers(count - len(answers), limits, end)
        answers += more
        again = died and died_at == len(answers)
        answers += [None] * again
        died_at = len(answers) if died and not again else -1
    if count and not answers:
        return None
    return [*answers, *[None] * (count - len(answers))]


class _LostError(Exception):
    """The child took too long, or died."""


class _DiedError(_LostError):
    """It died."""


@dataclass
class _Child:
    """The parent's side."""

    number: int
    pipe: int
    read: bytearray = field(default_factory=bytearray)

    def answers(self, count: int, limits: Limits, end: float) -> tuple[list[bytes | None], bool]:
        """Its answers up to the first that takes too long, which is None, or up to its death, and
        whether it died: a library's thread may be at fault, so that item is tried again.
        """
        answers, died = list[bytes | None](), False
        try:
            while len(answers) < count:
                answers.append(self.answer(limits, end))
        except _DiedError:
            died = True
        except _LostError:
            answers.append(None)
        finally:
            self.end()
        return answers, died

    def answer(self, limits: Limits, end: float) -> bytes:
        """Wait for the next one; raises _LostError if it does not come in time."""
        spent = self._cpu_s() + limits.item_s
        end = min(end, time.monotonic() + limits.item_wall_s)
        length = struct.unpack("<I", self._take(4, spent, end))[0]
        return self._take(length, spent, end)

    def end(self) -> None:
        """Kill it, wherever it is."""
        os.close(self.pipe)
        # Somebody else in this process may have waited for it.
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.number, signal.SIGKILL)
            os.waitpid(self.number, 0)

    def _take(self, length: int, spent: float, end: float) -> bytes:
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        while len(self.read) < length:
            # Looked at first: an answer that was written by then is found behind it.
            over = self._cpu_s() > spent or time.monotonic() > end
            if poll.poll(0 if over else 1000 * _STEP_S):
                self._fill()
            elif over:
                raise _LostError
        taken = bytes(self.read[:length])
        del self.read[:length]
        return taken

    def _fill(self) -> None:
        more = os.read(self.pipe, 2**16)
        if not more:
            raise _DiedError
        self.read += more

    def _cpu_s(self) -> float:
        # Of its first thread: libraries may start others of their own in every forked process.
        try:
            with open(f"/proc/{self.number}/task/{self.number}/schedstat", "rb") as file:
                return int(file.read().split()[0]) / 1e9
        except OSError as error:
            raise _LostError from error


def _started(work: Work, first: int, count: int) -> _Child | None:
    """A child that has begun to work; None if several hang or die before."""
    for _ in range(_STARTS):
        child = _forked(work, first, count)
        with suppress(_LostError):
            child.answer(Limits(_START_S, _START_S), time.monotonic() + _START_S)
            return child
        child.end()
    return None


def _forked(work: Work, first: int, count: int) -> _Child:
    ours, theirs = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Of threads, which the child has none of and waits for none of: else it is killed.
        warnings.simplefilter("ignore", DeprecationWarning)
        number = os.fork()
    if number == 0:
        _be_child(work, range(first, count), theirs, parent)
    os.close(theirs)
    return _Child(number, ours)


def _be_child(work: Work, items: range, pipe: int, parent: int) -> None:
    """Never returns: nothing may run on in the parent's code."""
    with suppress(BaseException):
        _settle(pipe, parent)
        _write(pipe, b"")
        for item in items:
            _write(pipe, work(item))
        # Until the parent has read everything and kills it.
        signal.pause()
    os._exit(1)


def _settle(pipe: int, parent: int) -> None:
    """Give up what is the parent's: handlers, files, locks on files, objects to clean up."""
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    die_with(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    close_all_but(pipe)
    with open("/proc/self/statm", "rb") as file:
        most = int(file.read().split()[0]) * resource.getpagesize() + _MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _write(pipe: int, answer: bytes) -> None:
    left = memoryview(struct.pack("<I", len(answer)) + answer)
    while left:
        left = left[os.write(pipe, left) :]
