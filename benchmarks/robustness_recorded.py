"""Attacks against rules and momentum on recorded updates: a screen of everything in two minutes.

A run without attackers is recorded, every client's update of every round. On these vectors each
attack is then played against each rule, with and without momentum of clients, and nothing is
trained again: how much is left of the step that the rule takes from the honest clients alone, along
that step. What an attack would change in later updates is not in it, so it says who can hide from
what, and not what is learned; ``robustness.py`` says that.

Usage::

    python benchmarks/robustness_recorded.py record [--seeds 0,1,2]    # 45 CPU seconds a seed
    python benchmarks/robustness_recorded.py play [--seeds 0,1,2]      # appends to the CSV
"""

from __future__ import annotations

import argparse
import csv
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from robustness_cells import (
    ATTACKS,
    BASE,
    LASTING,
    LONG,
    RECOMMENDED,
    RULES,
    Cell,
    limited,
    settings_of,
)

from fedgrpo.attacks import Knowledge, apply_attack
from fedgrpo.robust import combine
from fedgrpo.robust.momentum import Carried, carried
from fedgrpo.robust.rules import Public

Floats = NDArray[np.float64]

CSV = Path(__file__).parent / "results" / "robustness_recorded.csv"
FOLDER = Path(tempfile.gettempdir()) / "fedgrpo-recorded"
ROUNDS, SETTLED = 24, 4
"""Rounds of a run, and those that are left out of the mean, before there is a momentum."""
TRIM = ATTACKERS = 2
SERVER = 0.9
"""The server's momentum, where clients have none."""
BOUND = 2.0
"""Largest value that is encoded."""


@dataclass(frozen=True)
class Played:
    """What is left of the honest clients' step under an attack: the length of the step along it, as
    a share, and its cosine.
    """

    seed: int
    rule: str
    momentum: float
    attack: str
    along: float
    cosine: float


def keep(vector: Floats, known: Knowledge) -> Floats:
    """An attack that sends what is honest and records what everybody sends."""
    assert known.honest is not None
    updates = np.concatenate([known.own, known.honest])[:, : known.update]
    FOLDER.mkdir(exist_ok=True)
    np.save(FOLDER / f"{known.seed}-{known.round}.npy", updates)
    return vector


def record(seed: int) -> None:
    """Train without attackers, and record it."""
    import fedgrpo

    logging.disable(logging.WARNING)
    flat = settings_of(Cell("adamw", RECOMMENDED, "zero", 1, rounds=ROUNDS, seed=seed))
    attack = f"{Path(__file__).resolve()}:keep"
    # Nobody needs the accuracies.
    fedgrpo.simulate(flat | {"simulation.attack": attack, "evaluation.prompts": 10})


def recorded(seed: int) -> Floats:
    """Updates, shape (rounds, clients, d)."""
    return np.stack([np.load(FOLDER / f"{seed}-{t}.npy") for t in range(1, ROUNDS + 1)])


def steps(updates: Floats, rule: str, momentum: float, attack: str, seed: int) -> Iterator[Floats]:
    """Each round's step under an attack; without a name, of the honest clients alone."""
    kept: list[Carried | None] = [None] * updates.shape[1]
    size = updates.shape[2]
    way, first, last, step = np.zeros(size), np.zeros((0, size)), None, None
    mean = np.zeros(size)
    for round, now in enumerate(updates, start=1):
        kept = [carried(k, round, u, momentum) for k, u in zip(kept, now, strict=True)]
        sent = np.stack([one.mean for one in kept if one])
        own, honest = sent[:ATTACKERS], sent[ATTACKERS:]
        first = own if round == 1 else first
        told = [
            Knowledge(
                float(BASE["simulation.boost"]), round, size, own, honest,
                first=first[i] if round > 1 else None, step=step, way=way, last=last,
                clients=len(sent), attackers=ATTACKERS, rule=rule, trim=TRIM, seed=seed,
            )
            for i in range(ATTACKERS)
        ]  # fmt: skip
        bad = [apply_attack(attack, own[i], told[i]) for i in range(ATTACKERS)] if attack else []
        read = [np.nan_to_num(one, nan=BOUND, posinf=BOUND, neginf=-BOUND) for one in bad]
        seen = np.concatenate([np.clip(np.reshape(read, (-1, size)), -BOUND, BOUND), honest])
        last = combine(rule, seen, TRIM, Public(size, last=last))
        mean = last if momentum else SERVER * mean + (1 - SERVER) * last
        step = mean / max(float(np.linalg.norm(mean)), 1e-300)
        way = way + step
        yield mean / (1 if momentum else 1 - SERVER**round)


def play(seed: int) -> Iterator[Played]:
    """Everything against everything."""
    updates = recorded(seed)
    attacks = (*LASTING, *ATTACKS, *map(limited, LONG))
    data = ("flipped_reward", "length_reward", "backdoor")
    for rule in RULES:
        # A norm check takes its radius from what a run releases.
        for momentum in (0.0, 0.9) if rule != "norm_checked" else ():
            alone = list(steps(updates, rule, momentum, "", seed))
            for attack in attacks:
                if attack in data:  # What a client learns from is not recorded.
                    continue
                found = list(steps(updates, rule, momentum, attack, seed))
                pairs = list(zip(alone, found, strict=True))[SETTLED:]
                along = [float(a @ b / (a @ a)) for a, b in pairs]
                cosine = [float(a @ b / np.sqrt((a @ a) * max(b @ b, 1e-300))) for a, b in pairs]
                figures = (round(float(np.mean(one)), 4) for one in (along, cosine))
                yield Played(seed, rule, momentum, attack, *figures)


def rows() -> list[Played]:
    """What is in the CSV."""
    kinds = {"int": int, "float": float, "str": str}
    with CSV.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        Played(**{f.name: kinds[str(f.type)](line[f.name]) for f in fields(Played)})
        for line in lines
    ]


def write(played: list[Played]) -> None:
    """Write the CSV anew."""
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Played)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, played))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["record", "play"])
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    if args.what == "record":
        for seed in seeds:
            record(seed)
        return
    others = [row for row in rows() if row.seed not in seeds] if CSV.exists() else []
    write(sorted([*others, *(one for seed in seeds for one in play(seed))], key=lambda r: r.seed))


if __name__ == "__main__":
    main()
