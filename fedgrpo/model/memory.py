"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB.


def peak_gpu_memory(device: torch.device) -> int | None:
    """Largest memory that torch has held on a GPU, in bytes; None on another device."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
