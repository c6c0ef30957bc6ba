"""What curation by difficulty does on the shipped base: groups without signal, and completions to
0.8, on a file as it is and as it was curated. One seed a call.

Usage::

    python benchmarks/curation.py run --seed 0
    python benchmarks/curation.py table
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from learning_curves import RATE, SHARED, TASKS

from fedgrpo.data.curation.rules import Rules
from fedgrpo.data.curation.verdicts import judged
from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.tasks import generate
from fedgrpo.grpo import GRPOTrainer, HeldOut
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards import RewardMixture, exact_match
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

RESULTS = Path(__file__).parent / "results" / "curation.jsonl"
ROWS, SAMPLES, STEPS, EVERY, TARGET = 1000, 16, 320, 20, 0.8
WAYS = {"none": 1.0, "half": 0.5, "all": 0.0}
"""Share of the never solved rows that stays; ``none`` curates nothing at all."""


def adapter() -> Adapter:
    """The start of every run."""
    return Adapter(load_base(ModelSettings()), AdapterSettings(kind="lora", rank=8), seed=0)


def settings() -> GRPOSettings:
    """Of every run."""
    return GRPOSettings.model_validate({**SHARED, "learning_rate": RATE})


def rates(rows: Sequence[PromptRow]) -> dict[int, float]:
    """Share of the base's answers that are correct, by the row's position."""
    held = HeldOut(adapter(), RewardMixture.of(exact_match), rows, settings(), 0)
    solved, drawn = held.solved(SAMPLES)
    return {place: float(count) / drawn for place, count in enumerate(solved)}


def learnt(rows: Sequence[PromptRow], seed: int) -> dict[str, object]:
    """Train on rows for 10,240 completions, and measure on all tasks."""
    trainer = GRPOTrainer(adapter(), exact_match, rows, settings=settings(), seed=seed)
    held = generate(TASKS, 256, [1.0] * 4, 7, held_out=True)
    measure = HeldOut(trainer.adapter, RewardMixture.of(exact_match), held, trainer.settings, 0)
    curve, silent = [measure.sampled().reward], []
    for step, metrics in enumerate(trainer.train(STEPS), start=1):
        silent.append(metrics.zero_signal)
        if step % EVERY == 0:
            curve.append(measure.sampled().reward)
    each = trainer.policy.sampled.completions / STEPS
    pairs = pairwise(curve)
    reached = [n for n, pair in enumerate(pairs) if min(pair) >= TARGET]
    return {
        "rows": len(rows),
        "silent": statistics.fmean(silent),
        "silent_first": statistics.fmean(silent[: STEPS // 4]),
        "to_target": reached[0] * EVERY * each if reached else None,
        "last": statistics.fmean(curve[-3:]),
    }


def run(seed: int) -> None:
    """One seed, every way."""
    rows = generate(TASKS, ROWS, [1.0] * 4, seed + 1, held_out=False, distinct=True)
    found = rates(rows)
    for way, share in WAYS.items():
        rules = Rules(exact=False, samples=SAMPLES, keep_unsolved=share)
        verdicts = judged(rows, rules, {} if way == "none" else found)
        kept = [rows[place] for place in verdicts.kept(len(rows))]
        with RESULTS.open("a") as file:
            file.write(json.dumps({"seed": seed, "way": way, **learnt(kept, seed)}) + "\n")


def table() -> None:
    """Print every run, and means over seeds."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for way in WAYS:
        cells = [cell for cell in found if cell["way"] == way]
        means = {
            key: [round(cell[key], 3) if cell[key] is not None else None for cell in cells]
            for key in ("rows", "silent", "silent_first", "to_target", "last")
        }
        print(way, means)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run(given.seed) if given.command == "run" else table()
