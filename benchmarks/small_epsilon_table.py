"""What sweeps came to, as tables: a small epsilon, tasks that few clients have, local steps.

Writes them into ``docs/small-epsilon.md`` from ``results/*.csv``, each of which is a sweep's::

    fedgrpo sweep simulations/sweeps/NAME.toml --csv benchmarks/results/NAME.csv

Usage::

    python benchmarks/small_epsilon_table.py            # writes
    python benchmarks/small_epsilon_table.py --check    # fails if the document says anything else
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import correlated_noise
from tables import write

from fedgrpo.federation.simulation.sweep import results
from fedgrpo.federation.simulation.sweep.plan import Sweep, read_sweep

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "small-epsilon.md"


def played(name: str) -> tuple[Sweep, list[results.Line]]:
    """A sweep, and the lines of its cells. A line is its cell's by label and seed: settings that
    came later changed the hash of all.
    """
    sweep = read_sweep(ROOT / "simulations" / "sweeps" / f"{name}.toml")
    hashes = {cell.key[:3]: cell.key[3] for cell in sweep.cells}
    lines = results.read_results(ROOT / "benchmarks" / "results" / f"{name}.csv")
    named = [(results.key_of(line)[:3], line) for line in lines]
    return sweep, [line | {"settings": hashes[key]} for key, line in named if key in hashes]


def table(name: str, figure: str) -> Iterator[str]:
    """A sweep's own table."""
    yield results.table(*played(name), figure)


def tasks(name: str) -> Iterator[str]:
    """Each task's gain, mean over seeds, and the least of them."""
    sweep, lines = played(name)
    known = list(dict.fromkeys(key for line in lines for key in line))
    found = [
        key for key in known if key.startswith("sampled:") and f"{key}{results.START}" in known
    ]
    words = [key.removeprefix("sampled:") for key in found]
    if not found:
        return
    yield f"| | | {' | '.join(words)} | least | seeds |"
    yield "|---" * (len(found) + 4) + "|"
    for column in sweep.columns:
        for row in sweep.rows:
            own = [one for one in lines if (one["row"], one["column"]) == (row, column)]
            own = [one for one in own if not one["problem"]]
            if own:
                gains = [
                    sum(float(one[key]) - float(one[key + results.START]) for one in own) / len(own)
                    for key in found
                ]
                told = " | ".join(f"{gain:+.3f}" for gain in (*gains, min(gains)))
                yield f"| {column} | {row} | {told} | {len(own)} |"


def correlated() -> Iterator[str]:
    """Independent noise, beside noise that is correlated over rounds."""
    with correlated_noise.CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))
    yield "| epsilon | prompts a round | bands | noise multiplier | error of sums | of 1 band |"
    yield "|---|---|---|---|---|---|"
    base = {(row["epsilon"], row["per_round"]): row for row in rows if row["bands"] == "1"}
    for row in rows:
        beside = float(row["error"]) / float(base[row["epsilon"], row["per_round"]]["error"])
        figures = f"{float(row['noise_multiplier']):.2f} | {float(row['error']):.4f}"
        yield (
            f"| {row['epsilon']} | {row['per_round']} | {row['bands']} | {figures} | {beside:.2f} |"
        )


TABLES = {
    "small epsilon": partial(table, "small_epsilon", "sampled:b"),
    "greedy": partial(table, "small_epsilon", "greedy:b"),
    "correlated": correlated,
    "reverse": partial(table, "few_clients", "sampled:reverse"),
    "tasks": partial(tasks, "few_clients"),
    "local steps": partial(table, "local_steps", "sampled"),
}


if __name__ == "__main__":
    write(PAGE, TABLES, str(__doc__))
