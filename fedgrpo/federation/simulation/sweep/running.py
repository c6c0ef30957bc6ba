"""Runs of a sweep that are missing, side by side in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path

from fedgrpo.federation.simulation.sweep.plan import Cell, Sweep
from fedgrpo.federation.simulation.sweep.results import (
    START,
    Line,
    key_of,
    line_of,
    read_results,
    write_results,
)
from fedgrpo.ground.errors import FedGRPOError
from fedgrpo.ground.mishaps import pass_on_interrupt


def run_missing(sweep: Sweep, path: Path, processes: int, tell: Callable[[str], None]) -> None:
    """Run every cell that has no result yet, or had a problem, and keep each at once.

    A sweep that was interrupted goes on with what is missing; lines of cells that are no longer in
    the sweep, or whose settings changed, are dropped.

    Parameters
    ----------
    path:
        CSV of the results.
    processes:
        How many runs side by side, each on one core.
    tell:
        Shows a line for each run that ended.
    """
    wanted = {cell.key for cell in sweep.cells}
    lines = [x for x in read_results(path) if key_of(x) in wanted and not x["problem"]]
    done = {key_of(line) for line in lines}
    left = [cell for cell in sweep.cells if cell.key not in done]
    tell(f"{len(left)} of {len(sweep.cells)} runs to do, {processes} at a time, into {path}")
    if not left:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # Of the processes that start from here on.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(left)), context, _begin)
    try:
        for ended in as_completed([pool.submit(play, cell) for cell in left]):
            lines.append(ended.result())
            write_results(path, lines)
            tell(_said(lines[-1]))
    finally:
        for process in list((pool._processes or {}).values()):  # Nothing else ends them midway.
            process.terminate()
        pool.shutdown(cancel_futures=True)


def play(cell: Cell) -> Line:
    """One run from its start to its end; a failure is its problem and nobody else's."""
    from fedgrpo.federation.simulation.front_door import simulate

    wall, cpu = time.monotonic(), _cpu()
    try:
        result = simulate(cell.settings)
    except FedGRPOError as error:
        return line_of(cell, {}, error.problem)
    except BaseException as error:
        pass_on_interrupt(error)
        return line_of(cell, {}, type(error).__name__)
    first, last = result.measured[0], result.measured[-1]
    figures: dict[str, float | None] = {
        "sampled_start": first.sampled,
        "sampled": last.sampled,
        "greedy_start": first.greedy,
        "greedy": last.greedy,
    }
    for name, measured in ((START, first), ("", last)):
        for value, each in measured.held_out_by.items():
            figures |= {f"{way}:{value}{name}": each[way] for way in ("sampled", "greedy")}
    figures |= {
        "epsilon": max((held.epsilon for held in result.privacy), default=None),
        "rounds": last.round,
        "finished": statistics.fmean([row.finished for row in result.history if row.round] or [0]),
        "skipped": sum(not row.applied for row in result.history if row.round),
        "wall_s": time.monotonic() - wall,
        "cpu_s": _cpu() - cpu,
    }
    return line_of(cell, figures)


def _begin() -> None:
    """In each process: quiet, and over when the sweep is."""
    logging.disable(logging.WARNING)
    if parent := multiprocessing.parent_process():
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def _cpu() -> float:
    """CPU seconds of this process and of those that it started and that ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in spent)


def _said(line: Line) -> str:
    name = " / ".join(filter(None, (line["row"], line["column"]))) + f", seed {line['seed']}"
    if line["problem"]:
        return f"{name}: failed: {line['problem']}"
    return (
        f"{name}: held-out {float(line['sampled']):.3f} sampled, {float(line['greedy']):.3f} "
        f"greedy, {float(line['cpu_s']):.0f} s of a core"
    )
