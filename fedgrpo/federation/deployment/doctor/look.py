"""Asking a process of its own about prompts, model and reward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.records import from_json
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.look import Look

LOOK = "fedgrpo.federation.rehearsal.site_look"
LONGEST_S = 1800.0
"""After that it hangs."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""What is not on this machine is told, and not fetched."""


def look(settings: Settings, config: Mapping[str, Scalar], *, rehearse: bool) -> Look:
    """See :func:`fedgrpo.federation.rehearsal.site_look.look_at_site`; raises RunError if the
    process ended without an answer. What it says besides may quote a prompt, and is not read.
    """
    asked = {"settings": settings.to_run_config(), "config": dict(config), "rehearse": rehearse}
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", LOOK],
            input=json.dumps(asked) + "\n",
            env=os.environ | OFFLINE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"no answer within {LONGEST_S:.0f} s") from None
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise RunError(f"it ended with {how}")
    return from_json(Look, done.stdout)
