"""How a process in which rewards judge is started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

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


def descendants(number: int) -> Iterator[int]:
    """Processes that one has started, and theirs in turn; none where there is no ``/proc``."""
    for file in Path(f"/proc/{number}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text("ascii").split()):
                yield child
                yield from descendants(child)
