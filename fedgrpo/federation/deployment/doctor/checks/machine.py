"""Memory and processors."""

from __future__ import annotations

import os
from pathlib import Path

from fedgrpo.federation.deployment.doctor.checks.unlooked import unlooked
from fedgrpo.federation.deployment.doctor.finding import Findings, fine, said, trouble, waits
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.site.look import Fault, Look, SeenMemory

GIB = 2**30
TIMES = 2.0
"""Factor within which what is foretold was found to be right: see ``fedgrpo.grpo.forecast``."""


@check(14, "memory and GPU")
def memory(here: Surroundings) -> Findings:
    """What a round would take at its peak, and what there is."""
    yield from unlooked(here)
    if not isinstance(look := here.looked, Look):
        return
    if look.device:
        yield said("gpu-missing", look.device.error)
        return
    match look.memory:
        case SeenMemory() as seen:
            peak, free = f"{seen.peak / GIB:.1f}", f"{seen.free / GIB:.1f}"
            if TIMES * seen.peak > seen.free:
                yield trouble("memory-tight", peak=peak, times=f"{TIMES:g}", free=free)
            else:
                yield fine(f"a round takes {peak} GiB beside the model, and {free} GiB are free")
        case Fault() as fault:
            yield said("memory-short", fault.error)
        case None:
            yield waits("checks 9 and 12 come first")


@check(16, "processors")
def processors(here: Surroundings) -> Findings:
    """Threads that the site's file asks for, and cores that the machine or a container gives."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(here.machine.cgroup)
    cores = allowed if quota is None else max(1, min(allowed, int(quota)))
    threads = here.site.threads if here.site else 0
    if quota is not None and quota < 1:
        yield trouble("quota-small", quota=f"{quota:.2g}")
    if threads > cores:
        yield trouble("threads-many", threads=threads, cores=cores)
    else:
        yield fine(f"{threads or cores} threads on {cores} cores")


def _quota(cgroup: Path) -> float | None:
    """Cores that the control group pays for; None where it has no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text("ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None
