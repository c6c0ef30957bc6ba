"""One format for what the operator's and a site's processes say."""

from __future__ import annotations

import logging
import time


def log_to_stderr() -> None:
    """Say what a person should know, with the time in UTC. Flower has a logger of its own."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    ours = logging.getLogger("fedgrpo")
    ours.handlers[:] = [handler]
    ours.propagate = False
    ours.setLevel(logging.INFO)
