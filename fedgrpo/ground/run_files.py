"""Files of a run directory that several rooms know, and locks that keep others out of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedgrpo.ground.errors import RunError

METRICS, STATUS, SUMMARY, REPORT = "metrics.jsonl", "status.json", "summary.json", "report.png"
"""Rounds, where the run is now, its outcome, and its picture."""
PAGE, COMPARISON = "report.html", "comparison.html"
"""The run as a page, and beside other runs."""
CURATION_PAGE = "curation.html"
"""What was curated, for the site's own people."""
COMPLETIONS = "completions.jsonl"
"""Held-out prompts with completions, which only their owner may read."""
DROPPED = "dropped.jsonl"
"""Which node was dropped in which round, and why: for the operator, who knows them by name."""
SNAPSHOT = "settings.json"
"""The command whose run a directory holds, and its settings without the ``run`` section."""
LOCK, SERVER_LOCK = ".lock", ".server.lock"
"""Held by the command, and by the server."""
TRACKED = ".tracked"
"""The name under which trackers know the run."""
ADAPTER, BEST_ADAPTER = "adapter", "adapter-best"
"""Folders of the final adapter, and of the best one on held-out prompts, sampled."""
SHARED_ADAPTER = "adapter-shared"
"""Folder of the adapter that lies under a personal one."""
OPENED, OPENED_UNKNOWN = "opened.json", b'{"round": 0, "sums": [], "unknown": true}'
"""Which sums of a round were opened; what stands there in a run from a backup, which may have lost
some."""
SECRET, NODES = "run.secret", "nodes"
"""The secret of the server, and the folder of what simulated nodes keep."""


@contextmanager
def alone(directory: Path, name: str, *, cure: str) -> Iterator[None]:
    """Hold a lock of a run directory, which is made if need be; it ends with the process.

    Parameters
    ----------
    directory, name:
        Where the lock is.
    cure:
        For whoever comes second.

    Raises
    ------
    RunError
        If another process holds the lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RunError(
                f"run directory {directory} is in use by process {lock.read().strip() or '?'}",
                cure=cure,
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
