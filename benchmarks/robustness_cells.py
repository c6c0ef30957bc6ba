"""The runs that ``benchmarks/robustness.py`` plays, their settings, and the file of the results."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
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


def none_of(cell: Cell) -> Cell:
    """The same cell without attackers."""
    return replace(cell, attack="none", attackers=0)


def baselines(
    settings: tuple[str, ...], seeds: tuple[int, ...], rounds: int = 12
) -> Iterator[Cell]:
    """No attackers, and the honest ones alone."""
    for seed, setting in itertools.product(seeds, settings):
        for rule in rules_of(setting):
            cell = Cell(setting, rule, ALONE, attackers_of(setting), rounds=rounds, seed=seed)
            yield none_of(cell)
            if rule in (RECOMMENDED, "trimmed_mean") and setting != "buckets":
                yield cell


def screen() -> Iterator[Cell]:
    """Every attack against every rule, one seed, in two settings: a sketch."""
    yield from key()
    for setting in ("adamw", "after 0.8"):
        for rule in rules_of(setting):
            yield from (Cell(setting, rule, attack) for attack in attacks_on(rule))


def key() -> Iterator[Cell]:
    """The screen's part for the rules that matter most, and what all is compared with."""
    yield from baselines(("adamw", "after 0.8"), (0,))
    for setting, rules in KEY.items():
        for attacks in itertools.zip_longest(*(attacks_on(rule) for rule in rules)):
            tried = zip(rules, attacks, strict=True)
            yield from (Cell(setting, rule, attack) for rule, attack in tried if attack)


def gap() -> Iterator[Cell]:
    """Noise after the rule, three seeds: the two rules, and the attacks that hurt them."""
    for seed in (0, 1, 2):
        for rule, attacks in (
            ("norm_checked", (limited("ipm_own"),)),
            ("trimmed_mean", ("fang_own", "fang")),
        ):
            cell = Cell("after 0.8", rule, "none", seed=seed)
            yield none_of(cell)
            yield from (replace(cell, attack=attack) for attack in attacks)


def promise() -> Iterator[Cell]:
    """The recommended rule for twice as long under every attack, beside the honest ones alone:
    three seeds of the replay and of going back, then one of those that turned recorded updates
    most, of the others that hide among honest vectors, and two more of all, the worst first.
    """
    cell = Cell(PROMISED, RECOMMENDED, ALONE, rounds=24)
    for seed in (0, 1, 2):
        for attack in (ALONE, "stale", LASTING[0]):
            yield replace(cell, attack=attack, seed=seed)
        yield replace(none_of(cell), seed=seed)
    near = [attack for attack in attacks_on(RECOMMENDED) if attack not in FAR]
    turning = (LASTING[2], "mimic", "min_sum", "flipped_reward", "backdoor", LASTING[3])
    yield from (replace(cell, attack=attack) for attack in (*turning, *LASTING, *near))
    done = [row for row in finished() if place_of(row) == place_of(cell)]
    order = worst_of(done, len(ATTACKS))
    for attack, seed in itertools.product(order, (1, 2)):
        yield replace(cell, attack=attack, seed=seed)


def place_of(cell: Cell) -> tuple[str, str, int]:
    """Setting, rule and rounds."""
    return cell.setting, cell.rule, cell.rounds


def before() -> Iterator[Cell]:
    """As much noise, by each client, in the values that the rule sees."""
    for seed in (0, 1, 2):
        for rule, attacks in (("trimmed_mean", ("fang", "collude")), (RECOMMENDED, ("fang",))):
            cell = Cell("before 0.8", rule, "none", seed=seed)
            yield none_of(cell)
            yield from (replace(cell, attack=attack) for attack in attacks)


def far() -> Iterator[Cell]:
    """Attacks that stand out, against the recommended rule: whether it throws them out whole."""
    yield from (Cell("adamw", RECOMMENDED, attack, rounds=SHORT) for attack in FAR)


def lasting() -> Iterator[Cell]:
    """Attacks that last against the recommended rule, with momentum, without, and with more
    prompts: one seed, the one that a replay did worst in.
    """
    for setting in (PROMISED, "adamw", "adamw, 64 prompts", "adamw, momentum 0.7"):
        for attack in (ALONE, LASTING[0], "stale"):
            yield Cell(setting, RECOMMENDED, attack, rounds=24, seed=1)


def few() -> Iterator[Cell]:
    """One attacker of twelve, where noise comes after the rule."""
    for rule, attack in (("norm_checked", limited("ipm_own")), ("trimmed_mean", "fang_own")):
        for seed in (0, 1, 2):
            yield Cell("after 0.8", rule, attack, attackers=1, seed=seed)


def small() -> Iterator[Cell]:
    """A small epsilon, with what did worst at a larger one."""
    for seed in (0, 1, 2):
        for rule, attack in (("norm_checked", limited("ipm_own")), ("trimmed_mean", "fang_own")):
            cell = Cell("after 0.1", rule, attack, seed=seed)
            yield from (none_of(cell), cell)


def remedies() -> Iterator[Cell]:
    """What might hold where the recommended rule lost most: more prompts, another rule, gradients
    instead of AdamW's signs, and more that is trimmed than there are attackers.
    """
    more = Cell("adamw, 64 prompts", RECOMMENDED, ALONE, rounds=24)
    for seed, attack in itertools.product((1, 4), (ALONE, "stale")):
        yield replace(more, attack=attack, seed=seed)
    for attack in (ALONE, "stale", "ipm(epsilon=2.0)"):
        yield Cell("adamw", "multi_krum", attack, rounds=24, seed=1)
    for attack in (ALONE, "stale"):
        yield Cell("sgd", RECOMMENDED, attack, rounds=24, seed=1)
    yield Cell("adamw, trim 3", RECOMMENDED, "stale", rounds=24, seed=1)
    for attack in (ALONE, "stale"):
        yield replace(more, attack=attack)


def contrast() -> Iterator[Cell]:
    """The trimmed mean for as long as the promise."""
    for seed, attack in itertools.product((0, 1, 2), ("none", "stale", "alie(z=1.5)")):
        attackers = 2 if attack != "none" else 0
        yield Cell("adamw", "trimmed_mean", attack, attackers, rounds=24, seed=seed)


def claims() -> Iterator[Cell]:
    """Three seeds of what the guidance rests on besides."""
    cell = Cell("adamw", "trimmed_mean", "none")
    for seed in (0, 1, 2):
        yield replace(none_of(cell), seed=seed)
        for attack in ("stale", "alie(z=1.5)", "reverse_boost"):
            yield replace(cell, attack=attack, seed=seed)
    for seed in (0, 1, 2):
        for attack in ("backdoor", "backdoor(scale=10.0)"):
            yield replace(cell, attack=attack, seed=seed)


def engines() -> Iterator[Cell]:
    """Ordinary clients one after another, beside the same runs in one batch."""
    for seed in (0, 1, 2):
        yield Cell("after 0.8, one by one", "trimmed_mean", "none", 0, seed=seed)


def others() -> Iterator[Cell]:
    """Rules that are not recommended without noise, under what did worst in a prototype: sketches
    of one seed.
    """
    for rule, attacks in (
        ("mean", ("reverse_boost", "backdoor(scale=10.0)", "stale")),
        ("multi_krum", ("ipm(epsilon=2.0)", "stale")),
        ("geometric_median", ("stale", "alie(z=1.5)")),
        ("centred_clipping", ("stale", "alie(z=1.5)")),
        ("median", ("stale", "alie(z=1.5)")),
        (RECOMMENDED, ("stale", "alie(z=1.5)")),
    ):
        yield none_of(Cell("adamw", rule, "none"))
        yield from (Cell("adamw", rule, attack) for attack in attacks)
    yield none_of(Cell("after 0.8", "median", "none"))


def shipped() -> Iterator[Cell]:
    """The shipped scenario with two attackers as it stands, with the attack worst for it."""
    cell = Cell("private_prompts.toml", "trimmed_mean", "none", rounds=30)
    for seed in (0, 1, 2):
        yield replace(none_of(cell), seed=seed)
        yield replace(cell, attack="fang_own", seed=seed)


def bucketed() -> Iterator[Cell]:
    """One attacker among four buckets: other shipped scenarios, fewer rounds and prompts."""
    for seed in (0, 1, 2):
        for setting in ("buckets, no noise", "buckets"):
            for attack in ("none", "reverse_boost", "stale", "fang_own"):
                yield Cell(setting, "trimmed_mean", attack, int(attack != "none"), seed=seed)


def worst() -> Iterator[Cell]:
    """Each rule's three worst attacks of the screen, three seeds, in the settings of the screen."""
    yield from baselines(("adamw", "after 0.8"), (1, 2))
    for setting in ("adamw", "after 0.8"):
        for rule, seed in itertools.product(rules_of(setting), (1, 2)):
            for attack in worst_of(screened(setting, rule)):
                yield Cell(setting, rule, attack, seed=seed)


def elsewhere() -> Iterator[Cell]:
    """The same attacks in the other settings, three seeds."""
    for seed in (0, 1, 2):
        for setting in ("clipped", "after 0.1", "buckets"):
            yield from baselines((setting,), (seed,))
            near = "after 0.8" if setting.startswith("after") else "adamw"
            for rule in rules_of(setting):
                for attack in worst_of(screened(near, rule)):
                    yield Cell(setting, rule, attack, attackers_of(setting), seed=seed)


def fewer() -> Iterator[Cell]:
    """One of twelve, and two of twenty-four, for the rules that are recommended, three seeds."""
    for seed, setting in itertools.product((0, 1, 2), ("adamw", "after 0.8")):
        for rule in ("trimmed_mean", "norm_checked" if setting != "adamw" else RECOMMENDED):
            attacks = worst_of(screened(setting, rule))
            for attackers, clients in ((1, 12), (2, 24)):
                cell = Cell(setting, rule, "none", attackers, clients, seed=seed)
                yield none_of(cell)
                yield from (replace(cell, attack=attack) for attack in attacks)


def long() -> Iterator[Cell]:
    """The five worst of the screen for thirty rounds: whether time heals it."""
    for setting in ("adamw", "after 0.8"):
        for rule in ("trimmed_mean", "norm_checked" if setting != "adamw" else RECOMMENDED):
            cell = Cell(setting, rule, "none", 0, rounds=30)
            yield cell
            for attack in worst_of(screened(setting, rule), count=5):
                yield replace(cell, attack=attack, attackers=2)


STAGES = {
    "gap": gap,
    "lasting": lasting,
    "promise": promise,
    "few": few,
    "small": small,
    "claims": claims,
    "remedies": remedies,
    "engines": engines,
    "contrast": contrast,
    "others": others,
    "shipped": shipped,
    "far": far,
    "bucketed": bucketed,
    "before": before,
    "key": key,
    "worst": worst,
    "screen": screen,
    "elsewhere": elsewhere,
    "fewer": fewer,
    "long": long,
}
"""By value: what comes first is known when the minutes are used up."""


def screened(setting: str, rule: str) -> list[Row]:
    """A rule's rows of the screen."""
    near = "adamw" if setting not in ("adamw", "after 0.8") else setting
    return [row for row in finished() if is_screened(row, near, rule)]


def is_screened(row: Row, setting: str, rule: str) -> bool:
    return (row.setting, row.rule, row.seed, row.rounds) == (setting, rule, 0, 12)


def worst_of(rows: list[Row], count: int = 3) -> list[str]:
    """The attacks that left least, ends apart that are no attacks."""
    attacked = [row for row in rows if row.attackers and row.attack != ALONE and row.seed == 0]
    return [row.attack for row in sorted(attacked, key=lambda row: row.sampled)[:count]]


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
