"""x"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedgrpo.report.reader import Run


def write_page(runs: Sequence[Run]) -> Path:
    """X"""
    return runs[0].path
