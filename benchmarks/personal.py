"""Holders of one task each, and a task that a trimmed mean forgets: one shared adapter, a personal
one over it, and everything in one place, at equal completions on the shipped base. One seed a call.

Usage::

    python benchmarks/personal.py run --seed 0 [--rounds 60]
    python benchmarks/personal.py table
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedgrpo import simulate
from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.tasks import generate
from fedgrpo.report.reader import read_rows
from fedgrpo.standalone import train
from fedgrpo.standalone.personal import personalise

RESULTS = Path(__file__).parent / "results" / "personal.jsonl"
HOLDERS = ("add", "add", "reverse", "reverse", "sort", "sort", "maximum")
"""Each one's task. One value is trimmed at either end, and one holder has ``maximum``."""
ROWS, HELD, PROMPTS, GROUP = 300, 64, 8, 8
QUIET = Console(file=io.StringIO())


def drawn(task: str, count: int, seed: int, *, held_out: bool) -> list[PromptRow]:
    """Different prompts of one task."""
    return generate([task], count, [1.0], seed, held_out=held_out, distinct=not held_out)


def write(path: Path, rows: Sequence[PromptRow]) -> str:
    """Rows as a file; its path."""
    lines = (json.dumps({"prompt": row.prompt, **row.columns}) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def by_task(run: Path, number: int) -> dict[str, float]:
    """Held-out accuracy of each task in a run's row."""
    return {task: ways["sampled"] for task, ways in read_rows(run)[number].held_out_by.items()}


def shared(
    folder: Path, own: Sequence[Sequence[PromptRow]], held: str, rounds: int, seed: int
) -> Path:
    """A federation of the holders."""
    settings = {
        "rounds": rounds,
        "seed": seed,
        "data.min_prompts": ROWS,
        "adapter.kind": "lora",
        "adapter.rank": 8,
        "grpo.prompts_per_step": PROMPTS,
        "grpo.group_size": GROUP,
        "grpo.optimiser": "sgd",
        "grpo.learning_rate": 1.0,
        "privacy.unit": "none",
        "aggregation.protocol": "plain",
        "robust.rule": "trimmed_mean",
        "robust.trim": 1,
        "federation.min_clients": len(own),
        "server.learning_rate": 0.003,
        "evaluation.source": held,
        "evaluation.every": rounds,
    }
    simulate(settings, clients=own, directory=folder)
    return folder


def run(seed: int, rounds: int) -> None:
    """One seed: ``rounds`` federated ones, or half as many and as many steps of one's own."""
    own = [drawn(task, ROWS, 100 * seed + n, held_out=False) for n, task in enumerate(HOLDERS)]
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        tests = {task: drawn(task, HELD, 7, held_out=True) for task in dict.fromkeys(HOLDERS)}
        held = write(home / "held.jsonl", [row for rows in tests.values() for row in rows])
        whole = shared(home / "whole", own, held, rounds, seed)
        half = shared(home / "half", own, held, rounds // 2, seed)
        central = {
            "rounds": rounds,
            "seed": seed,
            "grpo.prompts_per_step": PROMPTS * len(own),
            "grpo.learning_rate": 1e-3,
            "adapter.kind": "lora",
            "adapter.rank": 8,
            "evaluation.source": held,
            "evaluation.every": rounds,
        }
        (home / "central.toml").write_text("")
        pooled = train(
            home / "central.toml",
            prompts=write(home / "all.jsonl", [row for rows in own for row in rows]),
            overrides=central,
            run_dir=home / "central",
            console=QUIET,
        )
        personal = {
            task: by_task(
                personalise(
                    half,
                    write(home / f"{task}.jsonl", own[HOLDERS.index(task)]),
                    steps=rounds // 2,
                    overrides={
                        "evaluation.source": write(home / f"{task}-held.jsonl", tests[task]),
                        "grpo.optimiser": "adamw",
                        "grpo.learning_rate": 1e-3,
                    },
                    run_dir=home / f"personal-{task}",
                    console=QUIET,
                ),
                -1,
            )[task]
            for task in tests
        }
        made = {
            "seed": seed,
            "rounds": rounds,
            "start": by_task(whole, 0),
            "shared": by_task(whole, -1),
            "half": by_task(half, -1),
            "personal": personal,
            "central": by_task(pooled, -1),
        }
    with RESULTS.open("a") as file:
        file.write(json.dumps(made) + "\n")


def table() -> None:
    """Print means and ranges over seeds."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for way in ("start", "shared", "half", "personal", "central"):
        said = []
        for task in dict.fromkeys(HOLDERS):
            each = [cell[way][task] for cell in found]
            said.append(f"{task} {statistics.fmean(each):.2f} ({min(each):.2f}-{max(each):.2f})")
        print(f"{way}, {len(found)} seeds: {', '.join(said)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    run(given.seed, given.rounds) if given.command == "run" else table()
