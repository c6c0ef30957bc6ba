"""Memory and processors."""

from __future__ import annotations

from fedgrpo.federation.deployment.doctor.checks.unlooked import unlooked
from fedgrpo.federation.deployment.doctor.finding import Findings, fine, said, trouble, waits
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.ground.machine import paid_cores, usable_cores
from fedgrpo.site.look import Fault, Look, SeenMemory

GIB = 2**30
TIMES = 2.0
"""Factor within which what is foretold was found to be right: see ``fedgrpo.grpo.forecast``."""


@check(14, "memory and GPU", opens=True)
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
    cores, quota = usable_cores(here.machine.cgroup), paid_cores(here.machine.cgroup)
    threads = int(here.config.get("threads", 0))
    if quota < 1:
        yield trouble("quota-small", quota=f"{quota:.2g}")
    if threads > cores:
        yield trouble("threads-many", threads=threads, cores=cores)
    else:
        yield fine(f"{threads or cores} threads on {cores} cores")
