"""Processes that are started with secrets, kept running, and end with who started them.

What a child is to know comes as one line of JSON on its standard input: arguments and environment
can be read by others. The pipe stays open, and its end tells the child that its parent is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fedgrpo.federation.deployment.log import log_to_stderr
from fedgrpo.ground.errors import RunError

LOG = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S, SETTLED_S = 1.0, 30.0, 60.0
"""Before a child is started again; after so long without a death, as soon as the first time."""
PATIENCE_S = 10.0
"""For a child to end when it is told to."""
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
}
"""Flower's programs call nobody, and no library draws or warns into the log."""


def start(
    module: str,
    told: Mapping[str, Any],
    *,
    keep: tuple[int, ...] = (),
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module of this package as a process.

    Parameters
    ----------
    module:
        Has a ``main`` that is run as ``python -m``.
    told:
        What it is to know.
    keep:
        Descriptors that it inherits.
    stdout:
        Where it writes, as ``subprocess`` has it; None where this process does.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=stdout,
        pass_fds=keep,
        env=os.environ | ENVIRONMENT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    return process


def answered(module: str, told: Mapping[str, Any], longest_s: float) -> dict[str, str]:
    """Have a module run as a process, and read the line of JSON that it says when it ends; raises
    RunError if it says none.
    """
    process = start(module, told, stdout=subprocess.PIPE)
    try:
        said, _ = process.communicate(timeout=longest_s)
        found: dict[str, str] = json.loads(said)
        return found
    except (ValueError, subprocess.TimeoutExpired):
        raise RunError(
            f"{module} gave no answer (code {process.poll()})",
            cure="see the lines above; is there enough memory?",
        ) from None
    finally:
        end(process)


def told() -> dict[str, Any]:
    """In a child: what it was told. From then on it ends when its parent does."""
    said = told_once()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return said


def told_once() -> dict[str, Any]:
    """In a child that looks itself whether its standard input has ended: what it was told."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise SystemExit("this is started by fedgrpo itself")
        line += piece
    log_to_stderr()
    said: dict[str, Any] = json.loads(line)
    return said


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE_S)
    os._exit(1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child, in order if it does so in time."""
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdin is not None
    process.stdin.close()


async def keep_running(
    name: str,
    begin: Callable[[], subprocess.Popen[bytes]],
    why: Callable[[], str] = lambda: "",
) -> None:
    """Start a child again whenever it ends, after growing waits, until this is cancelled.

    Parameters
    ----------
    name:
        For the log.
    begin:
        Starts it.
    why:
        Finds out why it ended; called in a thread.
    """
    loop, wait_s = asyncio.get_running_loop(), FIRST_WAIT_S
    while True:
        process, began = begin(), loop.time()
        try:
            code = await _ended(process)
        except asyncio.CancelledError:
            # Not in a thread: what is cancelled waits for nothing.
            end(process)
            raise
        end(process)
        wait_s = FIRST_WAIT_S if loop.time() - began > SETTLED_S else wait_s
        reason = await asyncio.to_thread(why)
        told = {"code": "process-ended"}
        LOG.warning(
            "%s ended (code %d); again in %.0f s. %s", name, code, wait_s, reason, extra=told
        )
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


async def start_every(
    period_s: float, begin: Callable[[], subprocess.Popen[bytes]], longest_s: float
) -> None:
    """Start a child at whole periods after this was called, until this is cancelled.

    When the next one starts does not depend on how long a child takes, which may follow from what
    it looks at: whoever it greets sees the times.

    Parameters
    ----------
    period_s:
        Between two; those that would start while one runs are left out.
    begin:
        Starts it.
    longest_s:
        After that it is ended.
    """
    began = time.monotonic()
    while True:
        await asyncio.sleep(until_next(time.monotonic() - began, period_s))
        process = begin()
        try:
            async with asyncio.timeout(longest_s):
                await _ended(process)
        except TimeoutError:
            told = {"code": "process-slow"}
            LOG.warning("%s took more than %.0f s", process.args, longest_s, extra=told)
        finally:
            end(process)


def until_next(passed_s: float, period_s: float) -> float:
    """Seconds to the next whole period, when so many have passed since the first began."""
    return period_s - passed_s % period_s


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Exit code of a child, when it has ended."""
    while (code := process.poll()) is None:
        await asyncio.sleep(0.2)
    return code
