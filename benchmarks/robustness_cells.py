"""What ``benchmarks/robustness.py`` plays: runs, their settings, and the file of the results."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CSV = Path(__file__).parent / "results" / "robustness.csv"

BASE: dict[str, Any] = {
    "data.source": "tasks",
    "data.prompts_per_client": 2000,
    "data.min_prompts": 2000,
    "data.heterogeneity": 0.5,
    "grpo.prompts_per_step": 24,
    "grpo.group_size": 8,
    "privacy.unit": "prompt",
    "privacy.noise": "server",
    "privacy.delta": 1e-5,
    "privacy.max_epsilon": 1e9,
    "aggregation.protocol": "plain",
    "simulation.boost": 10.0,
    "server.optimiser": "fedadam",
    "evaluation.prompts": 600,
    "evaluation.by": "asked",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"privacy.unit": "none"},
    # Momentum of clients in the place of the server's.
    "adamw, momentum": {
        "privacy.unit": "none",
        "robust.momentum": 0.9,
        "server.momentum": 0.0,
    },
    "adamw, momentum 0.7": {
        "privacy.unit": "none",
        "robust.momentum": 0.7,
        "server.momentum": 0.0,
    },
    "sgd": {"privacy.unit": "none", "grpo.optimiser": "sgd"},
    "adamw, 64 prompts": {"privacy.unit": "none", "grpo.prompts_per_step": 64},
    "adamw, trim 3": {"privacy.unit": "none", "robust.trim": 3},
    "after 0.8": {"privacy.noise_multiplier": 0.88},  # epsilon 0.8 after 12 rounds.
    "clipped": {"privacy.noise": "client", "privacy.noise_multiplier": 1e-3},
    "after 0.1": {"privacy.noise_multiplier": 1.96},  # epsilon 0.1 after 12 rounds.
    # committee.toml's rule and noise, by a trusted server.
    "after 0.8, trim 1": {"privacy.noise_multiplier": 0.88, "robust.trim": 1},
    "buckets": {
        "aggregation.protocol": "buckets",
        "privacy.noise": "client",
        "privacy.noise_multiplier": 0.7,
    },
    "buckets, no noise": {"aggregation.protocol": "buckets", "privacy.unit": "none"},
    "before 0.8": {"privacy.noise": "client", "privacy.noise_multiplier": 0.88},
    # Every prompt is a unit of one row, so nothing changes but who computes.
    "after 0.8, one by one": {"privacy.noise_multiplier": 0.88, "data.unit_rows": 2},
}
"""What is trained, clipped and noised. ``clipped`` has next to no noise: epsilon is beside the
point."""

AFTER = ("norm_checked", "trimmed_mean", "median", "mean")
"""Rules that noise can follow."""
RULES = ("nnm_trimmed_mean", "trimmed_mean", "norm_checked", "mean", "multi_krum",
         "geometric_median", "centred_clipping", "median")  # fmt: skip
RECOMMENDED, PROMISED = "nnm_trimmed_mean", "adamw, momentum"
"""The rule that is recommended without noise, and the setting that its promise is made for."""
KEY = {"adamw": (RECOMMENDED, "trimmed_mean"), "after 0.8": ("trimmed_mean", "norm_checked")}

ATTACKS = (
    "stale", "alie(z=1.5)", "fang", "fang_own", "reverse_boost", "ipm_own", "sign_flip",
    "ipm(epsilon=2.0)", "alie_dir", "min_max", "min_sum", "nan", "mimic", "concentrated", "alie",
    "ipm(epsilon=0.5)", "zero", "gaussian", "infinity", "constant", "collude", "flipped_reward",
    "length_reward", "backdoor",
)  # fmt: skip
LASTING = ("min_sum(direction='undo')", "min_max(direction='undo')",
           "min_sum(direction='fixed')", "stale(share=0.5)")  # fmt: skip
"""Attacks that hide as well as they can, and push the same way in all rounds: made for rules that
look at one round alone.
"""
LONG = ("fang", "fang_own", "reverse_boost", "concentrated", "constant")
"""Attacks that stand out by their length, which have norm-limited variants in the matrix."""
FAR = ("nan", "infinity", "constant", "gaussian", "collude", "fang_own", "fang", "reverse_boost",
       "concentrated", "fang(limited=True)", "fang_own(limited=True)",
       "reverse_boost(limited=True)",
       "concentrated(limited=True)")  # fmt: skip
"""Attacks that stand out by length or direction, so that whoever looks at distances sees them."""
CLOSED = "fang"
"""An attack that the recommended rule throws out whole in every round: what would be as well is the
same run.
"""
ALWAYS = (CLOSED, "fang(limited=True)", "fang_own", "reverse_boost", "concentrated",
          "concentrated(limited=True)", "constant", "gaussian", "nan", "infinity", "collude",
          "alie(z=1.5)", "ipm_own")  # fmt: skip
"""Attacks that are, in the same rounds of the same run (``robustness_recorded.py thrown``)."""
SHORT = 3
"""Rounds that show who is thrown out, and not what is learned."""
PLAIN, TRIGGERED, TRIGGERS = "plain", "triggered", 200
"""Held-out prompts as they are, and how many of them are also asked behind the trigger."""
ALONE = "nan_message"
"""What every reader refuses: the honest clients alone, on the same prompts."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    setting: str
    rule: str
    attack: str
    attackers: int = 2
    clients: int = 12
    rounds: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Row(Cell):
    """A cell and what it came to: accuracies before and after, sampled and greedy; how often the
    backdoor's target is the answer to a triggered prompt at the end, sampled; share of rounds in
    which n - f vectors had each other for nearest neighbours and nobody else, so that the rest was
    thrown out whole (nearest-neighbour mixing only); CPU seconds.
    """

    start: float = math.nan
    sampled: float = math.nan
    greedy: float = math.nan
    triggered: float = math.nan
    closed: float = math.nan
    cpu_s: float = 0.0
    problem: str = ""

    @property
    def gain(self) -> float:
        """In sampled accuracy."""
        return self.sampled - self.start


def thrown_out(updates: NDArray[np.float64], trim: int) -> bool:
    """Whether B - trim of the vectors, shape (B, d), have each other for nearest neighbours and
    nobody else, so that nearest-neighbour mixing throws the rest out whole.
    """
    from fedgrpo.robust.distances import squared_distances

    near = np.argsort(squared_distances(updates), axis=1, kind="stable")
    sets = [frozenset(row[: len(updates) - trim].tolist()) for row in near]
    return any(all(sets[i] == one for i in one) for one in set(sets))


# Which cells --------------------------------------------------------------------------------------


def attacks_on(rule: str) -> Iterator[str]:
    """Attacks that a rule is tried with: under a norm check, only what passes it."""
    if rule == "norm_checked":
        yield from (limited(attack) for attack in ATTACKS if attack not in ("nan", "infinity"))
        return
    yield from ATTACKS
    yield from (limited(attack) for attack in LONG)


def limited(attack: str) -> str:
    """An attack's norm-limited variant; a poisoned client trains honestly and needs none."""
    if attack in ("flipped_reward", "length_reward", "backdoor"):
        return attack
    if attack == "ipm_own":  # The longest vector against the own mean that passes.
        return "ipm_own(epsilon=100.0, limited=True)"
    return f"{attack[:-1]}, limited=True)" if attack.endswith(")") else f"{attack}(limited=True)"


def rules_of(setting: str) -> tuple[str, ...]:
    """Rules that a setting allows."""
    return AFTER if setting.startswith("after") else RULES


def attackers_of(setting: str) -> int:
    """As many as are trimmed: of four buckets of three, one can be."""
    if setting.startswith("buckets") or setting == "after 0.8, trim 1":
        return 1
    return 5 if setting == "private_clients.toml" else 2


def place_of(cell: Cell) -> tuple[str, str, int]:
    """Setting, rule and rounds."""
    return cell.setting, cell.rule, cell.rounds


# The file ----------------------------------------------------------------------------------------


def finished() -> list[Row]:
    """What is in the CSV, cells that failed left out."""
    return [row for row in recorded() if not row.problem]


def recorded() -> list[Row]:
    """What is in the CSV."""
    if not CSV.exists():
        return []
    kinds = {field.name: _kind(field.type) for field in fields(Row)}
    with CSV.open(newline="") as file:
        return [
            Row(**{name: kinds[name](value) for name, value in line.items()})
            for line in csv.DictReader(file)
        ]


def _kind(name: object) -> Any:
    return {"str": str, "int": int, "float": float}[str(name)]


def record(row: Row) -> None:
    """Append a row."""
    CSV.parent.mkdir(exist_ok=True)
    new = not CSV.exists()
    with CSV.open("a", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def settings_of(cell: Cell) -> dict[str, Any]:
    """The settings of a cell's run; a setting that is a file is a shipped scenario as it stands."""
    if cell.setting.endswith(".toml"):
        return scenario(cell)
    changes = dict(SETTINGS[cell.setting])
    if cell.rule == "norm_checked" and cell.setting == "clipped":
        changes["privacy.noise"] = "server"  # Its own kind of noise, next to none either.
    return {
        **BASE,
        "robust.trim": attackers_of(cell.setting),
        **changes,
        "rounds": cell.rounds,
        "evaluation.every": cell.rounds,
        "seed": cell.seed,
        "robust.rule": cell.rule,
        "federation.min_clients": cell.clients - cell.attackers,
        "simulation.clients": cell.clients,
        "simulation.byzantine": cell.attackers,
        "simulation.attack": "zero" if cell.attack == "none" else cell.attack,
        # Half of the rate for twice the rounds: the same way in smaller steps.
        "server.learning_rate": 0.01 if cell.rounds <= 12 else 0.005,
    }


def scenario(cell: Cell) -> dict[str, Any]:
    """A shipped scenario's settings, with the cell's rule, attack and seed."""
    from fedgrpo.settings import Settings

    file = Path(__file__).parents[1] / "simulations" / cell.setting
    return {
        **Settings.from_toml(file).to_run_config(),
        "seed": cell.seed,
        "robust.rule": cell.rule,
        "rounds": cell.rounds,
        "evaluation.every": cell.rounds,
        "evaluation.by": "asked",
        "simulation.byzantine": cell.attackers,
        "simulation.attack": "zero" if cell.attack == "none" else cell.attack,
    }
