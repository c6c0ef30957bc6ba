"""A server with its nodes in one process, to be killed: ``python -m ... FOLDER NAME ATTEMPT``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.federation.runs import CLIENT_NOISE, Runs

ROUNDS, NODES = 30, 6


def runs(folder: Path) -> Runs:
    """Runs that take a second or two."""
    return Runs(folder, NODES, **CLIENT_NOISE | {"rounds": ROUNDS})


def main(folder: str, name: str, attempt: str) -> None:
    """Start or go on with a run, and draw no picture of it."""
    import fedgrpo.report.plots

    fedgrpo.report.plots.plot_run = lambda run_dir: None  # type: ignore[assignment]
    runs(Path(folder)).go(Path(folder) / name, int(attempt))


if __name__ == "__main__":
    main(*sys.argv[1:])
