"""A run, or several side by side, as one page of HTML for people who read no code."""

from fedgrpo.report.page.writing import write_page

__all__ = ["write_page"]
