"""A run on the console: while it goes on, and as a table at its end."""

from fedgrpo.report.console.closing import conclude, report
from fedgrpo.report.console.health import warnings
from fedgrpo.report.console.live import LiveView, follow, shown
from fedgrpo.report.console.summary_table import print_summary

__all__ = ["LiveView", "conclude", "follow", "print_summary", "report", "shown", "warnings"]
