"""Attacks against rules and momentum on recorded updates: a screen of everything in two minutes.

A run without attackers is recorded, every client's update of every round. On these vectors each
attack is then played against each rule, with and without momentum of clients, and nothing is
trained again: how much is left of the step that the rule takes from the honest clients alone, along
that step. What an attack would change in later updates is not in it, so it says who can hide from
what, and not what is learned; ``robustness.py`` says that.

``thrown`` is exact. Where the recommended rule throws both attackers out whole, its result has the
same bits whatever they sent. So an attack that is thrown out in every round of what was recorded
under another one that always is would have been that very run.

Usage::

    python benchmarks/robustness_recorded.py record [--seeds 0,1,2]    # 45 CPU seconds a seed
    python benchmarks/robustness_recorded.py play [--seeds 0,1,2]      # appends to the CSV
    python benchmarks/robustness_recorded.py thrown [--seeds 0,1,2]    # 45 CPU seconds a seed
"""

from __future__ import annotations

import argparse
import csv
import logging
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from robustness_cells import (
    ATTACKS,
    BASE,
    CLOSED,
    LASTING,
    LONG,
    PROMISED,
    RECOMMENDED,
    RULES,
    Cell,
    attacks_on,
    limited,
    settings_of,
    thrown_out,
)

from fedgrpo.attacks import Knowledge, apply_attack
from fedgrpo.robust import combine
from fedgrpo.robust.momentum import Carried, carried
from fedgrpo.robust.rules import Public

Floats = NDArray[np.float64]
Line = TypeVar("Line", "Played", "Thrown")

CSV = Path(__file__).parent / "results" / "robustness_recorded.csv"
THROWN = CSV.with_name("robustness_thrown.csv")
FOLDER = Path(tempfile.gettempdir()) / "fedgrpo-recorded"
ON_DATA = ("flipped_reward", "length_reward", "backdoor")
"""Attacks on what a client learns from, which is not recorded."""
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
        seen = np.concatenate([np.reshape([read(one) for one in bad], (-1, size)), honest])
        last = combine(rule, seen, TRIM, Public(size, last=last))
        mean = last if momentum else SERVER * mean + (1 - SERVER) * last
        step = mean / max(float(np.linalg.norm(mean)), 1e-300)
        way = way + step
        yield mean / (1 if momentum else 1 - SERVER**round)


def play(seed: int) -> Iterator[Played]:
    """Everything against everything."""
    updates = recorded(seed)
    attacks = (*LASTING, *ATTACKS, *map(limited, LONG))
    for rule in RULES:
        # A norm check takes its radius from what a run releases.
        for momentum in (0.0, 0.9) if rule != "norm_checked" else ():
            alone = list(steps(updates, rule, momentum, "", seed))
            for attack in attacks:
                if attack in ON_DATA:
                    continue
                found = list(steps(updates, rule, momentum, attack, seed))
                pairs = list(zip(alone, found, strict=True))[SETTLED:]
                along = [float(a @ b / (a @ a)) for a, b in pairs]
                cosine = [float(a @ b / np.sqrt((a @ a) * max(b @ b, 1e-300))) for a, b in pairs]
                figures = (round(float(np.mean(one)), 4) for one in (along, cosine))
                yield Played(seed, rule, momentum, attack, *figures)


# What is thrown out ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thrown:
    """The share of rounds in which an attack is thrown out whole by the recommended rule."""

    seed: int
    attack: str
    closed: float


def closed(vector: Floats, known: Knowledge) -> Floats:
    """An attack that is thrown out in every round, and records what attackers are told in it."""
    FOLDER.mkdir(exist_ok=True)
    number = int(np.flatnonzero((known.own == vector).all(axis=1))[0])
    with _told(known.seed, known.round, number).open("wb") as file:
        pickle.dump((vector, known), file)
    return apply_attack(CLOSED, vector, known)


def _told(seed: int, round: int, number: int) -> Path:
    return FOLDER / f"told-{seed}-{round}-{number}.pickle"


def thrown(seed: int) -> Iterator[Thrown]:
    """Every attack on vectors, in the run of one that is thrown out in every round."""
    import fedgrpo

    logging.disable(logging.WARNING)
    flat = settings_of(Cell(PROMISED, RECOMMENDED, CLOSED, rounds=ROUNDS, seed=seed))
    attack = f"{Path(__file__).resolve()}:closed"
    fedgrpo.simulate(flat | {"simulation.attack": attack, "evaluation.prompts": 10,
                             "evaluation.by": "task"})  # fmt: skip
    told = [
        [pickle.loads(_told(seed, t, i).read_bytes()) for i in range(ATTACKERS)]
        for t in range(1, ROUNDS + 1)
    ]
    for attack in dict.fromkeys((CLOSED, *LASTING, *attacks_on(RECOMMENDED))):
        if attack not in ON_DATA:
            rounds = [thrown_out(sent(attack, both), TRIM) for both in told]
            yield Thrown(seed, attack, round(float(np.mean(rounds)), 4))


def sent(attack: str, told: list[tuple[Floats, Knowledge]]) -> Floats:
    """Everybody's updates in a round under an attack, the attackers' first, shape (clients, d)."""
    _, known = told[0]
    assert known.honest is not None
    bad = [read(apply_attack(attack, vector, own)) for vector, own in told]
    return np.concatenate([np.stack(bad), known.honest])[:, : known.update]


def read(vector: Floats) -> Floats:
    """What is read of a vector that an attacker encodes."""
    finite = np.nan_to_num(vector, nan=BOUND, posinf=BOUND, neginf=-BOUND)
    return np.asarray(np.clip(finite, -BOUND, BOUND))


# The files ----------------------------------------------------------------------------------------


def rows() -> list[Played]:
    """What was played."""
    return _rows(Played, CSV)


def never_in() -> list[Thrown]:
    """What was thrown out in every round, the run that was recorded among it."""
    played = _rows(Thrown, THROWN)
    seeds = {row.seed for row in played if row.attack == CLOSED and row.closed == 1}
    return [row for row in played if row.seed in seeds and row.closed == 1]


def _rows(kind: type[Line], path: Path) -> list[Line]:
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        kind(**{f.name: kinds[str(f.type)](line[f.name]) for f in fields(kind)}) for line in lines
    ]


def write(rows: list[Any], path: Path) -> None:
    """Write a CSV anew."""
    with path.open("w", newline="") as file:
        names = [field.name for field in fields(rows[0])]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["record", "play", "thrown"])
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    if args.what == "record":
        for seed in seeds:
            record(seed)
        return
    path, found = (CSV, play) if args.what == "play" else (THROWN, thrown)
    kind = Played if args.what == "play" else Thrown
    for seed in seeds:
        others = [row for row in _rows(kind, path) if row.seed != seed] if path.exists() else []
        write(sorted([*others, *found(seed)], key=lambda row: row.seed), path)


if __name__ == "__main__":
    main()
