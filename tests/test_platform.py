"""Where there is no ``fcntl``, as on Windows, one sentence says what is needed."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_without_fcntl_one_sentence_tells_what_is_needed() -> None:
    """From Python; the command is tried in tests/cli/test_outcome.py."""
    hidden = "import sys; sys.modules['fcntl'] = None; from fedgrpo import simulate"
    command = [sys.executable, "-c", hidden]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "fedgrpo needs Linux or macOS" in last
    assert "ModuleNotFoundError" not in done.stderr
