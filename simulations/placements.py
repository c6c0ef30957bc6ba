"""Where the noise goes: every placement at one epsilon, with and without attackers, several seeds.

Runs the two scenarios ``private_prompts.toml`` (noise once, after trimming, by the server or by a
committee) and ``private_prompts_client_noise.toml`` (noise by each client) in one process, without
Flower's runtime, and the same without noise. A run that is in the results already is not repeated.

Usage::

    python simulations/placements.py run [--seeds 0,1,2] [--placements trimmed,committee]
    python simulations/placements.py table
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import fedgrpo
from fedgrpo.privacy import worst_epsilon
from fedgrpo.settings.scenario import load_scenario

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "placements.jsonl"

PLACEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "trimmed": ("private_prompts.toml", {}),
    "committee": ("private_prompts.toml", {"aggregation.protocol": "committee"}),
    "clients": ("private_prompts_client_noise.toml", {}),
    # The same clipped gradients with next to no noise: epsilon is beside the point.
    "none": ("private_prompts.toml", {"privacy.noise_multiplier": 1e-6}),
}
TITLES = {
    "trimmed": "once, after trimming, by a trusted server",
    "committee": "once, after trimming, by a committee",
    "clients": "by each client, in the values that are trimmed",
    "none": "none",
}


def play(placement: str, attackers: int, seed: int) -> dict[str, Any]:
    """One run from start to end; held-out accuracy before and after."""
    scenario, changes = PLACEMENTS[placement]
    changes = {**changes, "simulation.byzantine": attackers, "seed": seed}
    if placement == "none":
        changes["privacy.max_epsilon"] = 1e9
    settings = load_scenario(HERE / scenario, changes, HERE)
    started = time.time()
    measured = fedgrpo.simulate(settings).measured
    before, after = measured[0], measured[-1]
    return {
        "placement": placement,
        "attackers": attackers,
        "seed": seed,
        "epsilon": None if placement == "none" else worst_epsilon(settings, settings.rounds),
        "before": before.sampled,
        "sampled": after.sampled,
        "greedy": after.greedy,
        "seconds": round(time.time() - started),
    }


def run(placements: list[str], seeds: list[int]) -> None:
    """Every run that is missing."""
    RESULTS.parent.mkdir(exist_ok=True)
    done = {(row["placement"], row["attackers"], row["seed"]) for row in rows()}
    for seed in seeds:
        for attackers in (2, 0):
            for placement in placements:
                if (placement, attackers, seed) in done:
                    continue
                row = play(placement, attackers, seed)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


def rows() -> list[dict[str, Any]]:
    """Every run so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]


def table() -> None:
    """Markdown: mean held-out accuracy (sampled), and the range over seeds."""
    runs: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows():
        runs[row["placement"], row["attackers"]].append(row["sampled"])
    print("| noise | two attackers | none | seeds |")
    print("|---|---|---|---|")
    for name, title in TITLES.items():
        cells = [_spread(runs[name, attackers]) for attackers in (2, 0)]
        count = min(len(runs[name, attackers]) for attackers in (2, 0))
        print(f"| {title} | {cells[0]} | {cells[1]} | {count} |")


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.fmean(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--seeds", default="0,1,2")
    runner.add_argument("--placements", default=",".join(PLACEMENTS))
    commands.add_parser("table")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.command == "table":
        table()
    else:
        run(args.placements.split(","), [int(seed) for seed in args.seeds.split(",")])


if __name__ == "__main__":
    main()
