"""The process that judges by users' own functions, one prompt's group after another.

Unlike that of :mod:`fedgrpo.rewards.sandboxed` it may remember, read and write, and use the network
unless it is told not to: no privacy rests on it. It is run by
:class:`fedgrpo.rewards.apart.process.RewardProcess`:
``python -m fedgrpo.rewards.apart.worker ORDER``.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.machine import be_killed_first
from fedgrpo.rewards.apart.frames import Order, receive, send
from fedgrpo.rewards.apart.limits import keep_children, leave_network, limit_cpu, limit_memory
from fedgrpo.rewards.calling.context import Notes, TrainerState
from fedgrpo.rewards.calling.judge import Judge, MissingColumnError, settled
from fedgrpo.rewards.loading import load_metric, load_reward

Verdict = np.ndarray[Any, np.dtype[np.float64]] | RewardError


def main(text: str) -> None:
    """Load, say what there is or why not, and judge until the other side hangs up."""
    order = Order.from_json(text)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    be_killed_first(1000)
    keep_children()
    with socket.socket(fileno=order.control) as link, suppress(BrokenPipeError):
        # A child that outlives this process would keep the other side waiting.
        os.register_at_fork(after_in_child=partial(os.close, order.control))
        try:
            judges, spans = _loaded(order)
        except RewardError as error:
            send(link, _json({"problem": error.problem, "cure": error.cure}))
            return
        send(link, _json({"judges": [_told(judge) for judge in judges], "spans": spans}))
        limit_memory()
        while frame := receive(link):
            _serve(link, frame, judges, order)


def _loaded(order: Order) -> tuple[tuple[Judge, ...], list[tuple[float, float]]]:
    """What judges, and the ranges of the metrics among it."""
    if not order.network:
        leave_network()
    metrics = {name: load_metric(name) for name in order.metrics}
    judges = (
        *(Judge.of(name, load_reward(name)) for name in order.names),
        *(Judge.of(name, metric.function, "metric") for name, metric in metrics.items()),
    )
    for judge in judges:
        getattr(judge.function, "warm_up", lambda: None)()
    return judges, [metric.span for metric in metrics.values()]


def _told(judge: Judge) -> dict[str, Any]:
    return {
        "needs": judge.needs,
        "abstains": bool(getattr(judge.function, "abstains", False)),
        "binds": hasattr(judge.function, "bind"),
    }


def _serve(link: socket.socket, frame: bytes, judges: Sequence[Judge], order: Order) -> None:
    """Judge some groups, each by some functions, telling of each what came of it at once."""
    state, todo = pickle.loads(frame)
    notes = {group: Notes() for group, *_ in todo}
    awaited: list[tuple[int, int, object, int]] = []
    for group, count, arguments, numbers in todo:
        limit_cpu(order.cpu_s)
        context = notes[group].keywords(TrainerState(**state))
        for number in numbers:
            send(link, _json({"at": [group, number]}))
            begun = _begun(judges[number], arguments, context)
            if hasattr(begun, "__await__"):
                awaited.append((group, number, begun, count))
            else:
                (verdict,) = settled([judges[number]], [begun], [count])
                _tell(link, group, number, verdict)
    if awaited:
        _await(link, awaited, judges, order)
    logged = [[group, each.extras, each.metrics] for group, each in notes.items()]
    send(link, _json({"over": logged}, default=repr))


def _await(
    link: socket.socket,
    awaited: Sequence[tuple[int, int, object, int]],
    judges: Sequence[Judge],
    order: Order,
) -> None:
    """What is asynchronous is awaited together, over all groups."""
    limit_cpu(order.cpu_s * len(awaited))
    send(link, _json({"awaiting": True}))
    found = settled(
        [judges[number] for _, number, _, _ in awaited],
        [begun for _, _, begun, _ in awaited],
        [count for _, _, _, count in awaited],
        order.timeout_s,
    )
    for (group, number, _, _), verdict in zip(awaited, found, strict=True):
        _tell(link, group, number, verdict)


def _begun(judge: Judge, arguments: Any, context: Any) -> object:
    try:
        return judge.begun(arguments, context)
    except RewardError as error:
        return error


def _tell(link: socket.socket, group: int, number: int, verdict: Verdict) -> None:
    told: dict[str, Any] = {"done": [group, number]}
    if isinstance(verdict, RewardError):
        told |= {"problem": verdict.problem, "cure": verdict.cure}
        told["missing"] = isinstance(verdict, MissingColumnError)
    else:
        told["rewards"] = [None if np.isnan(value) else float(value) for value in verdict]
    send(link, _json(told))


def _json(value: object, **options: Any) -> bytes:
    return json.dumps(value, **options).encode()


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
