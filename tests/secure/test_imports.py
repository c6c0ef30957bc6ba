"""The room stays light: a deployed node imports it afresh for every message."""

from __future__ import annotations

import subprocess
import sys


def test_secure_and_robust_import_neither_torch_nor_flower() -> None:
    script = (
        "import sys, fedgrpo.secure.committee.links.tls, fedgrpo.robust;"
        "print(sorted({'torch', 'flwr', 'fedgrpo.federation'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
