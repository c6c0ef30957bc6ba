"""How a process in which rewards judge is started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

import psutil

from fedgrpo.ground.errors import RewardError

_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start_worker(
    module: str,
    order: str,
    control: int,
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module as a process in a session of its own, with this one's environment and module
    path; libraries start no threads.

    Parameters
    ----------
    module:
        Run as ``python -m``.
    order:
        Its only argument.
    control:
        Descriptor that it inherits.
    environment:
        Further variables.
    stdout:
        As for :class:`subprocess.Popen`.

    Raises
    ------
    RewardError
        If the system starts none.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    fixed = {"PYTHONPATH": path, **environment, **dict.fromkeys(_THREAD_COUNTS, "1")}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, order],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            pass_fds=[control],
            env={**os.environ, **fixed},
            start_new_session=True,
        )
    except OSError as error:
        raise RewardError(
            f"the process in which rewards judge cannot be started ({type(error).__name__})",
            cure="see whether this machine has memory and processes left",
        ) from error


def descendants(number: int) -> list[psutil.Process]:
    """Processes that one has started, and theirs in turn."""
    with suppress(psutil.Error):
        found: list[psutil.Process] = psutil.Process(number).children(recursive=True)
        return found
    return []
