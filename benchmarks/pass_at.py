"""pass@k before and after training on the shipped base: GRPO alone, and in a federation with
prompt-level privacy and without. One cell a call; a cell that is in the results is not repeated.

Usage::

    python benchmarks/pass_at.py alone|federated|private --seed 0
    python benchmarks/pass_at.py table
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from learning_curves import RATE, SHARED, TASKS

from fedgrpo import simulate
from fedgrpo.data.tasks import generate
from fedgrpo.grpo import GRPOTrainer, HeldOut
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards import RewardMixture, exact_match
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

RESULTS = Path(__file__).parent / "results" / "pass_at.jsonl"
BUDGETS, PROMPTS, STEPS = (1, 8, 128), 64, 320
FEDERATED = {
    "rounds": 20,
    "simulation.clients": 12,
    "data.min_prompts": 2000,
    "grpo.prompts_per_step": 32,
    "grpo.group_size": 8,
    "privacy.noise": "server",
    "privacy.noise_multiplier": 1.3,
    "aggregation.protocol": "plain",
    "robust.trim": 2,
    "federation.min_clients": 10,
    "server.learning_rate": 0.01,
    "evaluation.prompts": PROMPTS,
    "evaluation.every": 20,
    "evaluation.pass_at": BUDGETS,
}

Shares = list[dict[str, float]]


def alone(seed: int) -> Shares:
    """Before and after 10,240 completions of one machine."""
    adapter = Adapter(load_base(ModelSettings()), AdapterSettings(kind="lora", rank=8), seed=0)
    settings = GRPOSettings.model_validate({**SHARED, "learning_rate": RATE})
    rows = generate(TASKS, 2000, [1.0] * 4, seed + 1, held_out=False)
    held = generate(TASKS, PROMPTS, [1.0] * 4, 7, held_out=True)
    trainer = GRPOTrainer(adapter, exact_match, rows, settings=settings, seed=seed)
    held_out = HeldOut(adapter, RewardMixture.of(exact_match), held, trainer.settings, 0)
    before = held_out.pass_at(BUDGETS)
    for _ in trainer.train(STEPS):
        pass
    return [before, held_out.pass_at(BUDGETS)]


def federated(seed: int, unit: str) -> Shares:
    """Before and after 61,440 completions of twelve clients."""
    done = simulate({**FEDERATED, "seed": seed, "privacy.unit": unit})
    return [done.history[0].pass_at, done.history[-1].pass_at]


def table() -> None:
    """Print means and ranges over seeds."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for way in dict.fromkeys(cell["way"] for cell in found):
        cells = [cell["shares"] for cell in found if cell["way"] == way]
        said = [f"{way}, {len(cells)} seeds"]
        for k in map(str, BUDGETS):
            for number, when in enumerate(("before", "after")):
                each = [shares[number][k] for shares in cells]
                said.append(
                    f"@{k} {when} {statistics.fmean(each):.3f} ({min(each):.3f}-{max(each):.3f})"
                )
        print("; ".join(said))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("alone", "federated", "private", "table"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.way == "table":
        return table()
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    known = {(cell["way"], cell["seed"]) for cell in map(json.loads, lines)}
    if (given.way, given.seed) in known:
        return None
    unit = {"federated": "none", "private": "prompt"}.get(given.way)
    shares = federated(given.seed, unit) if unit else alone(given.seed)
    with RESULTS.open("a") as file:
        file.write(json.dumps({"way": given.way, "seed": given.seed, "shares": shares}) + "\n")
    return None


if __name__ == "__main__":
    main()
