"""Rewards as people write them, and as they should not."""

import asyncio
import ctypes
import multiprocessing
import os
import socket
import subprocess
import sys
import time

CALLS: list[int] = []


def act(prompts, completions, what, **_):
    """Do what the row says."""
    kind = what[0]
    if kind == "loop":
        while True:
            pass
    if kind == "exit":
        os._exit(3)
    if kind == "leave":
        sys.exit(prompts[0])
    if kind == "crash":
        ctypes.string_at(0)
    if kind == "memory":
        [bytes(10**9) for _ in range(10**4)]
    if kind == "sleep":
        time.sleep(600)
    if kind == "raise":
        raise ValueError(prompts[0])
    if kind == "none":
        return [None for _ in completions]
    if kind == "pool":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return [float(n) for n in pool.map(len, completions)]
    if kind == "orphan":
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
        os._exit(0)
    if kind == "background":
        shell = "sleep 600 & echo $!"
        given = {"stdout": subprocess.PIPE, "start_new_session": True}
        with subprocess.Popen(["sh", "-c", shell], **given) as child:
            return [float(child.stdout.readline())] * len(completions)
    return [float(len(text)) for text in completions]


async def later(completions, what, **_):
    """The same, awaited."""
    await asyncio.sleep(0.1)
    if what[0] == "raise":
        raise ValueError(completions[0])
    if what[0] == "sleep":
        await asyncio.sleep(600)
    return [1.0 for _ in completions]


class Judge:
    """An object that is called and awaited."""

    async def __call__(self, completions, **_):
        return [float(len(text)) for text in completions]


judge = Judge()


def remembers(completions, log_metric, log_extra, trainer_state, **_):
    """Count calls, and tell of them."""
    CALLS.append(1)
    log_metric("calls", len(CALLS))
    log_extra("said", [text.upper() for text in completions])
    return [float(trainer_state.global_step) for _ in completions]


def connects(completions, where, **_):
    """Reach another process of this machine."""
    with socket.create_connection(("127.0.0.1", where[0]), timeout=5):
        return [1.0 for _ in completions]


def process(completions, **_):
    """Which process judges."""
    return [float(os.getpid()) for _ in completions]


def spoils(completions, cases, **_):
    """Change what it was given, as deep as it goes."""
    for case in cases:
        case.append("spoilt")
    return [float(len(case)) for case in cases]


needs_model = type("NeedsModel", (), {"bind": lambda self, adapter: None, "__call__": spoils})()
