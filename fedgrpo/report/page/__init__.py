"""A run, or several side by side, as one page of HTML, for people who read no code.

The page is one file that needs no network and runs no script. Whatever comes from a run is escaped.
"""

from fedgrpo.report.page.ledgers import CheckedLedger
from fedgrpo.report.page.writing import render, write_page

__all__ = ["CheckedLedger", "render", "write_page"]
