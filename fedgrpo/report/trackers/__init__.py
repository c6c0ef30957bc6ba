"""Figures of a run in trackers that people use elsewhere.

They are told of the rows that a server, or training alone, writes into its own run directory; a
node of a federation has none.
"""

from fedgrpo.report.trackers.libraries import NEEDS
from fedgrpo.report.trackers.names import figures
from fedgrpo.report.trackers.opening import check_trackers, tracking
from fedgrpo.report.trackers.tracker import TRACKERS, Tracked, Tracker, register_tracker

__all__ = [
    "NEEDS",
    "TRACKERS",
    "Tracked",
    "Tracker",
    "check_trackers",
    "figures",
    "register_tracker",
    "tracking",
]
