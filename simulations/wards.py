"""Nine clinics teach a real model: what it answered before and after, over several seeds.

Runs ``wards_small.toml`` and ``wards_small_private.toml`` in one process, each with and without its
attacker of nine. A run that is in the results already is not repeated, and one that was stopped
goes on where it was.

Usage::

    make smollm2 && python examples/wards/notes.py
    python simulations/wards.py run [--runs "open,private attacked"] [--seeds 0,1,2]
    python simulations/wards.py table
    python simulations/wards.py answers [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Any

import fedgrpo
from fedgrpo.federation.server.evaluator import local_evaluator
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy import worst_epsilon
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "wards.jsonl"
FIGURES = (
    "valid_json",
    "right_keys",
    "right_values",
    "right_ward",
    "near_urgency",
    "grounded_reason",
)
SUMMED = ("valid_json", "right_ward", "near_urgency")
"""Whose sum the aim is about: 3 at most."""
ATTACKED = {"simulation.byzantine": 1, "simulation.attack": "sign_flip"}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "open": ("wards_small.toml", {}),
    "open attacked": ("wards_small.toml", ATTACKED),
    "private": ("wards_small_private.toml", {"simulation.byzantine": 0}),
    "private attacked": ("wards_small_private.toml", {}),
}
WAYS = ("greedy", "sampled")
SHOWN = 6
"""Notes whose answers are kept."""


def play(run: str, seed: int) -> dict[str, Any]:
    """One run from start to end."""
    scenario, changes = RUNS[run]
    settings = load_scenario(HERE / scenario, {**changes, "seed": seed}, HERE.parent)
    started, began = time.time(), time.process_time()
    result = fedgrpo.simulate(settings, directory=HERE.parent / "runs" / f"wards {run} {seed}")
    rounds = [row for row in result.history if row.round]
    silent = [row.metrics["zero_signal"] for row in rounds if "zero_signal" in row.metrics]
    before, after = result.measured[0], result.measured[-1]
    private = settings.privacy.unit != "none"
    return {
        "run": run,
        "seed": seed,
        "rounds": settings.rounds,
        "epsilon": worst_epsilon(settings, settings.rounds) if private else None,
        "before": _short(before.held_out_rewards),
        "after": _short(after.held_out_rewards),
        "silent": round(statistics.fmean(silent), 3),
        "seconds": round(time.time() - started),
        "cpu_seconds": round(time.process_time() - began),
        "answers_before": answers(settings, local_evaluator(settings).initial()),
        "answers": answers(settings, result.adapter),
    }


def answers(settings: Settings, adapter: AdapterState) -> dict[str, Any]:
    """The likeliest answers to all held-out notes: how many differ, and the first few."""
    evaluator = local_evaluator(settings)
    assert evaluator.held_out
    evaluator.adapter.load(adapter)
    policy, rows = evaluator.held_out.policy, evaluator.held_out.collector.rows
    texts = policy.decode(evaluator.held_out.greedy().rollout)
    shown = [
        {"note": row.columns["note"], "ward": row.columns["ward"], "answer": text}
        for row, text in zip(rows[:SHOWN], texts, strict=False)
    ]
    return {"of": len(texts), "different": len(set(texts)), "first": shown}


def _short(rewards: Any) -> dict[str, dict[str, float]]:
    """Held-out means by the function's own name."""
    return {
        name.rpartition(":")[2]: {way: round(mean, 4) for way, mean in means.items()}
        for name, means in rewards.items()
    }


def run(names: list[str], seeds: list[int]) -> None:
    """Every run that is missing."""
    RESULTS.parent.mkdir(exist_ok=True)
    for seed in seeds:
        for name in names:
            if any((row["run"], row["seed"]) == (name, seed) for row in rows()):
                continue
            row = play(name, seed)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(name, seed, f"{_sum(row['before']):.2f} -> {_sum(row['after']):.2f}", flush=True)


def rows() -> list[dict[str, Any]]:
    """Every run so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]


def table() -> None:
    """Markdown: each held-out figure, greedy and sampled, means over seeds."""
    print(f"| run | seeds | {' | '.join(name.replace('_', ' ') for name in FIGURES)} ", end="")
    print("| sum of 3 | different answers | silent groups |")
    print("|---" * (5 + len(FIGURES)) + "|")
    for name in RUNS:
        if found := [row for row in rows() if row["run"] == name]:
            differ = [row["answers_before"] for row in found]
            print(_line(f"before ({name})", [row["before"] for row in found], differ, "-"))
            silent = f"{100 * statistics.fmean(row['silent'] for row in found):.0f} %"
            answered = [row["answers"] for row in found]
            print(_line(name, [row["after"] for row in found], answered, silent))


def _line(title: str, means: list[Any], answered: list[Any], silent: str) -> str:
    figures = [
        " / ".join(f"{statistics.fmean(m[name][way] for m in means):.2f}" for way in WAYS)
        for name in FIGURES
    ]
    total = " / ".join(f"{statistics.fmean(_sum(m, way) for m in means):.2f}" for way in WAYS)
    differ = ", ".join(f"{a['different']} of {a['of']}" for a in answered)
    cells = [title, str(len(means)), *figures, f"**{total}**", differ, silent]
    return f"| {' | '.join(cells)} |"


def _sum(means: dict[str, dict[str, float]], way: str = "greedy") -> float:
    return sum(means[name][way] for name in SUMMED)


def show(seed: int) -> None:
    """The first answers before and after, as each run has them."""
    for row in rows():
        if row["seed"] == seed:
            pairs = zip(row["answers_before"]["first"], row["answers"]["first"], strict=True)
            print(f"\n{row['run']}\n")
            for before, after in pairs:
                print(f"* {before['note']} ({before['ward']})")
                print(f"  * before: `{' '.join(before['answer'].split())}`")
                print(f"  * after: `{' '.join(after['answer'].split())}`")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--seeds", default="0,1,2")
    runner.add_argument("--runs", default="open,private attacked")
    commands.add_parser("table")
    commands.add_parser("answers").add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.command == "table":
        table()
    elif args.command == "answers":
        show(args.seed)
    else:
        run(args.runs.split(","), [int(seed) for seed in args.seeds.split(",")])


if __name__ == "__main__":
    main()
