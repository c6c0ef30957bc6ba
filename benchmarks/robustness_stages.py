"""Which runs ``benchmarks/robustness.py`` plays, by their value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from robustness_cells import (
    ALONE,
    ALWAYS,
    CLOSED,
    FAR,
    KEY,
    LASTING,
    PROMISED,
    RECOMMENDED,
    SHORT,
    Cell,
    Row,
    attackers_of,
    attacks_on,
    finished,
    limited,
    rules_of,
)


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
    """The recommended rule for twice as long under every attack, three seeds, beside the honest
    ones alone. One stands for all that are thrown out in every round.
    """
    cell = Cell(PROMISED, RECOMMENDED, ALONE, rounds=24)
    near = [attack for attack in attacks_on(RECOMMENDED) if attack not in ALWAYS]
    for seed in (0, 1, 2):
        yield replace(none_of(cell), seed=seed)
        for attack in (ALONE, CLOSED, *LASTING, *near):
            yield replace(cell, attack=attack, seed=seed)


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


def committee() -> Iterator[Cell]:
    """One attacker of twelve and trim 1, noise after the rule: what the shipped committee computes,
    fewer rounds and prompts.
    """
    for seed in (0, 1, 2):
        for attack in ("none", "fang_own", "reverse_boost", "stale"):
            attackers = int(attack != "none")
            yield Cell("after 0.8, trim 1", "trimmed_mean", attack, attackers, seed=seed)


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
    "committee": committee,
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
