"""Ends every process of a simulation, also when the command that started it is killed.

Flower's SuperLink and Ray start detached processes in sessions of their own; neither a process
group nor a tree of parents holds them all. So each inherits one environment variable, and whoever
carries it is ended. The command keeps a pipe to this program; the pipe closes when the command
ends, in whatever way. The program runs outside the package (``python -I reaper.py``): it needs no
import but psutil, and starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from pathlib import Path

import psutil

TAG = "FEDGRPO_SIMULATION"
"""Environment variable with the run directory, carried by each process of a simulation."""


def processes_of(run_dir: str) -> list[psutil.Process]:
    """List the processes of this user that were started for a run directory (absolute path)."""
    found = []
    for process in psutil.process_iter():
        # A process may end while it is looked at, and those of other users cannot be.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(TAG) == run_dir:
                found.append(process)
    return found


def end_processes_of(run_dir: str, patience_s: float = 3.0) -> int:
    """Ask them to end, kill those that have not after ``patience_s`` seconds, and repeat until none
    is left.

    Returns
    -------
    int
        How many were ended.
    """
    ended = 0
    while processes := processes_of(run_dir):
        ended += len(processes)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in _left_of(processes, patience_s):
            with contextlib.suppress(psutil.Error):
                process.kill()
        _left_of(processes, patience_s)
    return ended


def _left_of(processes: list[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Wait for processes to end and return those that have not. A zombie has, whoever buries it."""
    deadline = time.monotonic() + patience_s
    while (left := [p for p in processes if _lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def main(run_dir: str, scratch: str) -> None:
    """Wait until the command is gone, then end what it left and remove its scratch directory."""
    sys.stdin.buffer.read()
    end_processes_of(run_dir)
    shutil.rmtree(Path(scratch), ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
