"""Sends groups to the process in which rewards judge, and reads nothing but numbers from it."""

from __future__ import annotations

import builtins
import pickle
import signal
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground import errors
from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.rewards.sandboxed.connection import START_S, Connection
from fedgrpo.rewards.sandboxed.protocol import ENDED, JUDGED, KILLED, LATE, RAISED, REFUSED
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits

Floats = NDArray[np.float64]

SLOWER = 2.0
"""Times that a process may take to start again, as measured when it first started."""
GRACE_S = 10.0
"""Time beyond a group's own limit after which the worker itself counts as hung."""
_NO_FILES = ("PermissionError", "ModuleNotFoundError", "ImportError")


class RewardWorker:
    """A process that judges one prompt's group at a time and remembers none.

    It is reused for all groups, made anew when it died, and ends with this process.

    Parameters
    ----------
    names:
        Reward functions, as :func:`fedgrpo.rewards.load_reward` takes them.
    limits:
        Of one group.
    metrics:
        Metrics of users' own, as :func:`fedgrpo.rewards.load_metric` takes them.

    Raises
    ------
    RewardError
        If it cannot start, or one of the functions cannot be loaded there.
    """

    def __init__(
        self, names: Sequence[str], limits: WorkerLimits, metrics: Sequence[str] = ()
    ) -> None:
        self.names, self.metrics = tuple(names), tuple(metrics)
        self.limits = limits
        self._one_at_a_time = threading.Lock()
        started = time.monotonic()
        self._connection: Connection | None = self._opened(START_S)
        self.abstains = dict(zip(self.names, self._connection.abstains, strict=True))
        self.spans = dict(zip(self.metrics, self._connection.spans, strict=True))
        self._start_s = min(START_S, SLOWER * (time.monotonic() - started))

    @property
    def restart_s(self) -> float:
        """Most seconds that a group costs beyond its limit if the worker hangs at it: to notice,
        and to start another one.
        """
        return GRACE_S + self._start_s

    def judge(self, arguments: Mapping[str, Sequence[Any]], count: int) -> Floats:
        """Judge one prompt's completions by every function.

        Parameters
        ----------
        arguments:
            Keywords of the functions, ``count`` values each.
        count:
            Number of completions, n.

        Returns
        -------
        float64, shape (m + k, n)
            Rewards of m functions, then values of k metrics. NaN where one does not apply, and
            where a metric failed.

        Raises
        ------
        RewardError
            If the group could not be judged: a function raised, returned something else than
            numbers, crashed or took too much time or memory. Names the class of what was raised at
            most. The next group is judged as if this one had not been.
        """
        try:
            group = pickle.dumps((count, {name: list(v) for name, v in arguments.items()}))
        except BaseException as error:
            pass_on_interrupt(error)
            raise RewardError(
                f"a prompt's columns cannot be sent to its rewards ({type(error).__name__})",
                cure="use columns of texts, numbers, lists and tables",
            ) from None
        with self._one_at_a_time:
            answer, report = self._asked(group, 8 * self._rows * count)
        return self._numbers(answer, report, count)

    @property
    def _rows(self) -> int:
        return len(self.names) + len(self.metrics)

    def _opened(self, start_s: float) -> Connection:
        return Connection.open(self.names, self.limits, start_s, self.metrics)

    def close(self) -> None:
        """End the process; :meth:`judge` would make another one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _asked(self, group: bytes, size: int) -> tuple[bytes, bytes]:
        try:
            return self._alive().ask(group, size, self.limits.wall_s + GRACE_S)
        except (OSError, EOFError) as error:
            self.close()
            raise RewardError(
                f"the process in which rewards judge died ({type(error).__name__})",
                cure="see whether this machine has memory left; the next group gets a new one",
            ) from None
        except BaseException:
            # Interrupted in between: the next group must not get this one's answer.
            self.close()
            raise

    def _alive(self) -> Connection:
        if self._connection is None or not self._connection.is_alive():
            self.close()
            self._connection = self._opened(self._start_s)
        return self._connection

    def _numbers(self, answer: bytes, report: bytes, count: int) -> Floats:
        kind, content = answer[:1], answer[1:]
        if report == ENDED and kind == JUDGED and len(content) == 8 * self._rows * count:
            matrix = np.frombuffer(content, "<f8").astype(np.float64)
            if not np.isinf(matrix).any():
                return matrix.reshape(self._rows, count)
        if report == ENDED and kind in (RAISED, REFUSED) and len(content) >= 2:
            (number,) = struct.unpack("<H", content[:2])
            raise self._failure(kind, number, content[2:])
        raise self._killed(report)

    def _failure(self, kind: bytes, number: int, class_name: bytes) -> RewardError:
        name = self.names[min(number, len(self.names) - 1)]
        if kind == REFUSED:
            return RewardError(
                f"reward {name!r} did not return one finite number, or None, for each completion, "
                "or lacks a column",
                cure="call it by hand on a few completions of the prompts",
            )
        raised = _known_class(class_name)
        if raised in _NO_FILES:
            return RewardError(
                f"reward {name!r} raised {raised}",
                cure="let it read and import what it needs when its module is imported, or in its "
                "attribute warm_up: no file can be opened once a group is there",
            )
        return RewardError(
            f"reward {name!r} raised {raised}",
            cure="call it by hand on a few completions; the message is left out here because it "
            "may quote a prompt",
        )

    def _killed(self, report: bytes) -> RewardError:
        functions = ", ".join((*self.names, *self.metrics))
        kind = "rewards and metrics" if self.metrics else "rewards"
        if report == LATE:
            what = f"took longer than {self.limits.wall_s} s"
        elif report == KILLED + bytes([signal.SIGKILL]):
            what = f"took more than {self.limits.cpu_s} s of CPU time, or were killed"
        elif report[:1] == KILLED:
            what = f"crashed by signal {report[1]}"
        else:
            what = "ended their process without an answer"
        return RewardError(
            f"{kind} {functions} {what} for one group of completions",
            cure="call them by hand on a few completions; a group that cannot be judged counts "
            "nothing",
        )


def _known_class(name: bytes) -> str:
    """The class if it is Python's or ours: a reward could write a text into the name of its own."""
    text = name.decode("ascii", "replace")
    known = getattr(builtins, text, None) or getattr(errors, text, None)
    is_error = isinstance(known, type) and issubclass(known, BaseException)
    return text if is_error else "an error of its own"
