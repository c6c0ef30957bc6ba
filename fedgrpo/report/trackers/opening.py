"""Trackers are found before a run, opened with it, and closed whatever becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from fedgrpo.ground.errors import FedGRPOError, SettingsError
from fedgrpo.report.trackers.libraries import NEEDS, missing
from fedgrpo.report.trackers.tracker import TRACKERS, Tracked, Tracker

LOG = logging.getLogger(__name__)

MOST_TOLD = 600
"""Letters of a tracker's own error that are shown."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown, or whose library is missing.

    Raises
    ------
    SettingsError
        Names the tracker, and the extra that brings its library.
    """
    for name in names:
        TRACKERS.check(name)
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            raise missing(name)


@contextmanager
def tracking(names: Sequence[str], run: Tracked) -> Iterator[tuple[Tracker, ...]]:
    """Open trackers for a run, and close them whatever becomes of it.

    Parameters
    ----------
    names:
        ``run.report_to``: built-in names, or classes of a module or file of one's own.
    run:
        What they are told of.

    Raises
    ------
    SettingsError
        If one cannot be opened, with its own words.
    """
    check_trackers(names)
    with ExitStack() as stack:
        opened = []
        for name in names:
            opened.append(_opened(name, run))
            stack.callback(_close, opened[-1])
        yield tuple(opened)


def _close(tracker: Tracker) -> None:
    try:
        tracker.close()
    except Exception:  # A run is finished without its tracker.
        kind, code = type(tracker).__name__, {"code": "app-failed"}
        LOG.exception("tracker %s could not be closed", kind, extra=code)


def _opened(name: str, run: Tracked) -> Tracker:
    try:
        return TRACKERS[name](run)
    except FedGRPOError:
        raise
    except Exception as error:
        # A tracker knows of settings alone, so its words quote no prompt.
        raise SettingsError(
            f"run.report_to = {name!r}: the tracker cannot be opened: "
            f"{type(error).__name__}: {str(error)[:MOST_TOLD]}",
            cure="do what it says, or leave it out of run.report_to",
        ) from error
