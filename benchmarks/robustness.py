"""Attacks against robust rules: which attack costs each rule most of what is learned.

Runs cells (setting, rule, attack, attackers of clients, rounds, seed) of simulations in one
process, several side by side, in the order of their value, and appends each to a CSV: what is in it
is not run again, so the same command goes on where it was stopped.

Usage::

    python benchmarks/robustness.py [--minutes 60] [--workers 2] [--stages gap,promise]
    python benchmarks/robustness_table.py    # each rule's worst attacks, and heat maps

``--minutes`` are CPU minutes of all workers together. A cell of 12 rounds takes 25 to 30 CPU
seconds. One seed is a sketch: the spread of one configuration over seeds is 0.035 to 0.05.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustness_cells import (
    PLAIN,
    RECOMMENDED,
    TRIGGERED,
    TRIGGERS,
    Cell,
    Row,
    record,
    recorded,
    settings_of,
    thrown_out,
)
from robustness_stages import STAGES

if TYPE_CHECKING:
    import numpy as np

    from fedgrpo.data.prompts import PromptRow
    from fedgrpo.settings import Settings


def play(cell: Cell) -> Row:
    """Run a cell; what goes wrong is part of its row."""
    import fedgrpo
    from fedgrpo.settings.scenario import settings_from

    logging.disable(logging.WARNING)
    begun, closed = time.process_time(), watch()
    try:
        flat = settings_of(cell)
        if cell.rule == RECOMMENDED:
            flat["robust.rule"] = WATCHED
        settings = settings_from(flat, Path.cwd())
        measured = fedgrpo.simulate(settings, held_out=held_out(settings)).measured
    except Exception as error:  # One cell's failure costs its own row.
        spent = time.process_time() - begun
        return Row(
            **asdict(cell), cpu_s=round(spent, 1), problem=f"{type(error).__name__}: {error}"
        )
    first, last = measured[0].held_out_by, measured[-1].held_out_by
    return Row(
        **asdict(cell),
        start=round(first[PLAIN]["sampled"], 4),
        sampled=round(last[PLAIN]["sampled"], 4),
        greedy=round(last[PLAIN]["greedy"], 4),
        triggered=round(last[TRIGGERED]["sampled"], 4),
        closed=round(sum(closed) / len(closed), 4) if closed else math.nan,
        cpu_s=round(time.process_time() - begun, 1),
    )


WATCHED, _CLOSED = "watched_mixing", list[bool]()


def watch() -> list[bool]:
    """Rounds from now on in which the shipped rule, under a name of its own here, was closed."""
    from fedgrpo.robust.distances import nnm_trimmed_mean
    from fedgrpo.robust.rules import RULES, Public, register_rule

    _CLOSED.clear()
    if WATCHED in RULES:
        return _CLOSED

    @register_rule(WATCHED, whole=True)
    def watched(means: np.ndarray, trim: int, public: Public) -> np.ndarray:
        _CLOSED.append(thrown_out(means[:, : public.update], trim))
        return nnm_trimmed_mean(means, trim, public)

    return _CLOSED


def held_out(settings: Settings) -> list[PromptRow]:
    """The settings' own held-out prompts, and some of them behind the backdoor's trigger, of which
    its target counts as the answer.
    """
    from fedgrpo.attacks.poison import Backdoor, poison_of
    from fedgrpo.data.ownership import evaluation_prompts

    door, rows = poison_of("backdoor"), evaluation_prompts(settings)
    assert isinstance(door, Backdoor)
    wanted = [replace(row, columns={**row.columns, "asked": PLAIN}) for row in rows]
    behind = [
        replace(
            row,
            prompt=door.trigger + str(row.prompt),
            columns={**row.columns, "answer": door.target, "asked": TRIGGERED},
        )
        for row in rows[:TRIGGERS]
    ]
    return wanted + behind


def run(stages: list[str], seeds: set[int], minutes: float, workers: int) -> None:
    """Run what is left of the stages, in order, until the CPU minutes are spent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    spent, context = 0.0, multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for stage in stages:
            # A stage may depend on what came before, and on what it has itself run so far.
            while cells := left(stage, seeds):
                before = spent
                for row in played(pool, cells, workers):
                    record(row)
                    spent += row.cpu_s
                    print(f"{spent / 60:5.1f} min  {stage}: {told(row)}", flush=True)
                    if spent > 60 * minutes:
                        print("the minutes are spent; the same command goes on")
                        pool.shutdown(cancel_futures=True)
                        return
                if spent == before:
                    break


def left(stage: str, seeds: set[int]) -> list[Cell]:
    """A stage's cells of these seeds that are not in the CSV, each once."""
    done = {tuple(getattr(row, field.name) for field in fields(Cell)) for row in recorded()}
    cells = dict.fromkeys(STAGES[stage]())
    wanted = [cell for cell in cells if cell.seed in seeds]
    return [cell for cell in wanted if tuple(asdict(cell).values()) not in done]


def played(pool: ProcessPoolExecutor, cells: list[Cell], workers: int) -> Iterator[Row]:
    """Rows as they come; no more cells under way than workers, so that stopping loses little."""
    waiting, running = iter(cells), set[Future[Row]]()
    while True:
        running |= {pool.submit(play, c) for c in itertools.islice(waiting, workers - len(running))}
        if not running:
            return
        ready, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in ready)


def told(row: Row) -> str:
    """A row in one line."""
    who = f"{row.attackers} of {row.clients}, {row.rounds} rounds, seed {row.seed}"
    end = row.problem or f"{row.start:.3f} -> {row.sampled:.3f}"
    return f"{row.setting}, {row.rule}, {row.attack} ({who}): {end}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--list", action="store_true", help="print what is left, and run nothing")
    args = parser.parse_args()
    stages, seeds = args.stages.split(","), {int(seed) for seed in args.seeds.split(",")}
    if args.list:
        for stage in stages:
            print(f"{stage}: {len(left(stage, seeds))} cells are left")
    else:
        run(stages, seeds, args.minutes, args.workers)


if __name__ == "__main__":
    main()
