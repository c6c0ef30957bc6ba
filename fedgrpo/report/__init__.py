"""What a run shows and leaves behind: records, console, picture, page, trackers.

Everything here reads and writes the run directory alone, so a run can be watched, drawn and summed
up from another process, or long after it ended. ``plots`` and ``page`` are left to their own
imports: matplotlib is slow to load, and a node never draws.
"""

from fedgrpo.ground.records import Guarantee, from_json, to_json
from fedgrpo.report.console import LiveView, follow, print_summary, warnings
from fedgrpo.report.reader import read_rows, read_status, read_summary
from fedgrpo.report.records import (
    PHASES,
    RewardSummary,
    RobustSummary,
    RoundRow,
    Status,
    Summary,
)
from fedgrpo.report.writer import WAITING, RunWriter

__all__ = [
    "PHASES",
    "WAITING",
    "Guarantee",
    "LiveView",
    "RewardSummary",
    "RobustSummary",
    "RoundRow",
    "RunWriter",
    "Status",
    "Summary",
    "follow",
    "from_json",
    "print_summary",
    "read_rows",
    "read_status",
    "read_summary",
    "to_json",
    "warnings",
]
