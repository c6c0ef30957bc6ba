"""Sends groups to the process in which users' rewards judge, and outlives it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.apart.frames import Order, receive, send
from fedgrpo.rewards.calling.judge import MissingColumnError
from fedgrpo.rewards.calling.processes import descendants, start_worker
from fedgrpo.rewards.composite import Batch, Column, Floats

START_S = 120.0
"""Longest time for loading the functions."""
GRACE_S = 5.0
"""Time beyond a limit of its own after which the process counts as hung."""
_CURE = "call it by hand on the completions of this row, and mend it; the row counts nothing"

Verdicts = dict[tuple[int, int], Floats | RewardError]
"""By group and function."""


@dataclass(frozen=True)
class Told:
    """What the process says of a function when it has loaded it.

    Attributes
    ----------
    needs:
        Keywords that it cannot do without.
    abstains:
        Whether it may leave a group without a reward.
    binds:
        Whether it wants the trainer's model, which is not there.
    """

    needs: tuple[str, ...]
    abstains: bool
    binds: bool


@dataclass(frozen=True)
class _Death:
    """Why the process ended, and at which group, if that is known."""

    group: int | None
    error: RewardError


class RewardProcess:
    """A process that judges, made anew when it died. It ends with this one.

    Parameters
    ----------
    names:
        Reward functions, as :func:`fedgrpo.rewards.load_reward` takes them.
    cpu_s, timeout_s:
        CPU seconds and seconds of one prompt's group.
    network:
        Whether it may use the network.
    metrics:
        Metrics of users' own, as :func:`fedgrpo.rewards.load_metric` takes them.

    Raises
    ------
    RewardError
        If it cannot start, or one of the functions cannot be loaded there.
    """

    def __init__(
        self,
        names: Sequence[str],
        cpu_s: int,
        timeout_s: float,
        *,
        network: bool = True,
        metrics: Sequence[str] = (),
    ) -> None:
        self.rewards, self.metrics = tuple(names), tuple(metrics)
        self.names = (*self.rewards, *self.metrics)
        self.cpu_s, self.timeout_s, self.network = cpu_s, timeout_s, network
        self._one_at_a_time = threading.Lock()
        self._link: socket.socket | None = None
        self._start()

    def columns(self, batch: Batch) -> list[Column]:
        """What each function says of each group, and behind them each metric.

        Raises
        ------
        RewardError
            If the process cannot be started again.
        """
        verdicts: Verdicts = {}
        queue = [list(range(len(batch.groups)))]
        with self._one_at_a_time:
            while queue:
                asked = queue.pop(0)
                death = self._ask(batch, asked, verdicts)
                if death:
                    queue = self._after(death, asked, verdicts) + queue
        numbers, groups = range(len(self.names)), range(len(batch.groups))
        return [[verdicts[group, number] for group in groups] for number in numbers]

    def _after(self, death: _Death, asked: list[int], verdicts: Verdicts) -> list[list[int]]:
        """What is left to ask: one by one where it is not known which group it was."""
        left = [group for group in asked if self._missing(group, verdicts)]
        if death.group is None and len(left) > 1:
            return [[group] for group in left]
        blamed = left[:1] if death.group is None else [death.group]
        for group in blamed:
            verdicts |= {(group, n): death.error for n in self._missing(group, verdicts)}
        rest = [group for group in left if group not in blamed]
        return [rest] if rest else []

    def _missing(self, group: int, verdicts: Verdicts) -> list[int]:
        return [n for n in range(len(self.names)) if (group, n) not in verdicts]

    def _ask(self, batch: Batch, groups: list[int], verdicts: Verdicts) -> _Death | None:
        """Have groups judged by the functions that have not judged them yet."""
        parts = [(group, batch.part(group), self._missing(group, verdicts)) for group in groups]
        todo = [
            (group, part.count, {n: list(v) for n, v in part.arguments.items()}, numbers)
            for group, part, numbers in parts
        ]
        try:
            order = pickle.dumps((asdict(batch.state), todo))
        except Exception as error:
            raise RewardError(
                f"a prompt's columns cannot be sent to its rewards ({type(error).__name__})",
                cure="use columns of texts, numbers, lists and tables",
            ) from None
        if self._link is None or self._process.poll() is not None:
            self._start()
        assert self._link is not None
        at: list[int] | None = None
        try:
            send(self._link, order)
            deadline = time.monotonic() + self.timeout_s + GRACE_S
            while message := receive(self._link, deadline):
                told = json.loads(message)
                if "over" in told:
                    _log(batch, told["over"])
                    return None
                if "done" in told:
                    verdicts[told["done"][0], told["done"][1]] = _verdict(told)
                    continue
                at = told.get("at")
                grace = 0.0 if at else GRACE_S
                deadline = time.monotonic() + self.timeout_s + grace
        except TimeoutError:
            return self._died(at, late=True)
        except OSError:
            pass
        except BaseException:
            # Interrupted in between: the next order must not get this one's answers.
            self.close()
            raise
        return self._died(at, late=False)

    def _died(self, at: list[int] | None, *, late: bool) -> _Death:
        if not late:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        code = self._process.poll()
        self.close()
        name = self.names[at[1]] if at else ", ".join(self.names)
        kind = "metric" if at and at[1] >= len(self.rewards) else "reward"
        if late:
            what = f"took longer than reward.timeout_s = {self.timeout_s:g} s"
        elif code == -signal.SIGXCPU:
            what = f"took more than reward.cpu_s = {self.cpu_s} s of CPU time"
        elif code == -signal.SIGKILL:
            what = "was killed, perhaps for the memory that it took"
        elif code is not None and code < 0:
            what = f"crashed by signal {-code}"
        else:
            what = "ended its process"
        return _Death(at[0] if at else None, RewardError(f"{kind} {name!r} {what}", cure=_CURE))

    def _start(self) -> None:
        self.close()
        link, theirs = socket.socketpair()
        with theirs:
            order = Order(
                theirs.fileno(),
                self.rewards,
                self.cpu_s,
                self.timeout_s,
                self.network,
                self.metrics,
            )
            self._process = start_worker(
                "fedgrpo.rewards.apart.worker", order.to_json(), order.control
            )
        self._link = link
        self._end = weakref.finalize(self, _end, self._process, link, os.getpid())
        try:
            hello = json.loads(receive(link, time.monotonic() + START_S) or _SILENT)
        except TimeoutError:
            hello = {
                "problem": f"{', '.join(self.names)}: not loaded within {START_S:g} s",
                "cure": "see whether what their modules do when they are imported comes to an end",
            }
        if "problem" in hello:
            self.close()
            raise RewardError(hello["problem"], cure=hello["cure"])
        self.told = {
            name: Told(tuple(each["needs"]), each["abstains"], each["binds"])
            for name, each in zip(self.names, hello["judges"], strict=True)
        }
        self.spans = dict(zip(self.metrics, hello["spans"], strict=True))

    def close(self) -> None:
        """End the process and all that it started; another order would make a new one."""
        if self._link is not None:
            self._end()
        self._link = None


_SILENT = json.dumps(
    {
        "problem": "the process in which users' rewards judge did not start",
        "cure": "read its own messages above: the reward modules are imported there",
    }
)


def _verdict(told: dict[str, Any]) -> Floats | RewardError:
    if "problem" in told:
        kind = MissingColumnError if told["missing"] else RewardError
        return kind(told["problem"], cure=told["cure"])
    return np.array([np.nan if r is None else r for r in told["rewards"]], dtype=np.float64)


def _log(batch: Batch, over: list[Any]) -> None:
    """Keep what the functions logged; a completion of another group has no value in a column."""
    if batch.notes is None:
        return
    for group, extras, metrics in over:
        for name, values in metrics.items():
            batch.notes.metrics.setdefault(name, []).extend(values)
        span = batch.groups[group]
        for name, values in extras.items():
            column = batch.notes.extras.setdefault(name, [None] * batch.count)
            column[span] = [*values, *[None] * batch.count][: span.stop - span.start]


def _end(process: subprocess.Popen[bytes], link: socket.socket, owner: int) -> None:
    link.close()
    if owner == os.getpid():
        # Its own children, too: a pool that it never closed, or what went into the background with
        # this command's output, for whose end a pipe would wait.
        others = descendants(process.pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for other in others:
            with suppress(psutil.Error):
                other.kill()
        process.kill()
        process.wait()
