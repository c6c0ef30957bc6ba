"""Where there is no ``fcntl``, as on Windows, one sentence says what is needed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "program", ["import fedgrpo.cli.app", "from fedgrpo import Callback, GRPOTrainer"]
)
def test_without_fcntl_one_sentence_tells_what_is_needed(program: str) -> None:
    hidden = f"import sys; sys.modules['fcntl'] = None; {program}"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "fedgrpo needs Linux or macOS" in last
    assert "ModuleNotFoundError" not in done.stderr
