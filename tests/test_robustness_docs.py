"""Every figure of the robustness page comes from the measured rows."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_of_the_page_are_those_of_the_measured_rows() -> None:
    script = ROOT / "benchmarks" / "robustness_table.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
