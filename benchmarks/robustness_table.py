"""What ``benchmarks/robustness.py`` measured, as tables and a heat map.

Writes the tables into ``docs/robustness.md``, between the marks that name them, and a heat map
beside it; no figure there is typed by hand.

Usage::

    python benchmarks/robustness_table.py            # writes
    python benchmarks/robustness_table.py --check    # fails if the document says anything else
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import robustness_recorded
from robustness_cells import (
    ALONE,
    ATTACKS,
    CLOSED,
    LASTING,
    PROMISED,
    RECOMMENDED,
    SETTINGS,
    SHORT,
    Row,
    attackers_of,
    finished,
    limited,
    place_of,
)
from tables import write

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "robustness.md", DOCS / "robustness.png"
MARGIN = 0.10
"""Share of the gain that the recommended rule may lose."""
BATCHED, APART = "after 0.8", "after 0.8, one by one"
ROUNDS = 24
"""Of the promise."""
ENOUGH = 3
"""Seeds of a claim; fewer are a sketch."""


# Figures ------------------------------------------------------------------------------------------


def same_runs(rows: list[Row]) -> Iterator[Row]:
    """Rows of attacks that were not trained against with a seed, and did not need to be: thrown out
    in every round of a run, they would have been that run.
    """
    long = [row for row in rows if place_of(row) == (PROMISED, RECOMMENDED, ROUNDS)]
    runs = {row.seed: row for row in long if row.attack == CLOSED}
    trained = {(row.attack, row.seed) for row in long}
    for one in robustness_recorded.never_in():
        if one.seed in runs and (one.attack, one.seed) not in trained:
            yield replace(runs[one.seed], attack=one.attack, cpu_s=0.0)


def place(row: Row) -> tuple[object, ...]:
    """What a row shares with the run that it is compared with."""
    return row.setting, row.rule, row.clients, row.rounds, row.seed


def losses(rows: Iterable[Row], base: Iterable[Row]) -> list[float]:
    """Shares of the base's gain that rows lost, paired by all but the attack."""
    gains = {place(row): row.gain for row in base}
    return [1 - row.gain / gains[place(row)] for row in rows if gains.get(place(row), 0) > 0]


def paired(rows: Iterable[Row], base: Iterable[Row]) -> list[Row]:
    """Rows that have a run to be compared with."""
    places = {place(row) for row in base}
    return [row for row in rows if place(row) in places]


def loss(values: list[float]) -> str:
    """A mean in per cent with its standard error, or a sketch marked as one."""
    if not values:
        return "-"
    mean = 100 * statistics.fmean(values)
    if len(values) < ENOUGH:
        return f"~{round(mean)} % ({len(values)})"
    return f"**{round(mean)}** ± {100 * error(values):.0f} % ({len(values)})"


def error(values: list[float]) -> float:
    """Standard error of a mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


def reached(
    rows: Iterable[Row], what: Callable[[Row], float] = attrgetter("sampled"), *, count: bool = True
) -> str:
    """Mean accuracy at the end, and of how many seeds."""
    values = [what(row) for row in rows]
    if not values:
        return "-"
    mean = f"{'' if len(values) >= ENOUGH else '~'}{statistics.fmean(values):.3f}"
    return f"{mean} ({len(values)})" if count else mean


def grouped(rows: Iterable[Row]) -> dict[tuple[object, ...], dict[str, list[Row]]]:
    """Rows by setting, clients, rounds and rule, and in each by attack, with how many attackers
    there were where that is not the setting's own number.
    """
    found: dict[tuple[object, ...], dict[str, list[Row]]] = {}
    for row in rows:
        key = row.setting, row.clients, row.rounds, row.rule
        usual = row.attackers in (0, attackers_of(row.setting))
        attack = row.attack if usual else f"{row.attack}, {row.attackers} of {row.clients}"
        found.setdefault(key, {}).setdefault(attack, []).append(row)
    return found


def base_of(attacks: dict[str, list[Row]]) -> list[Row]:
    """Runs without attackers."""
    return attacks.get("none", [])


# Tables -------------------------------------------------------------------------------------------


def worst(rows: list[Row]) -> Iterator[str]:
    """Each rule's worst attacks in each setting."""
    yield "| setting | rounds | rule | no attackers | attack: its end, share of the gain lost |"
    yield "|---|---|---|---|---|"
    order = [*SETTINGS, *sorted({row.setting for row in rows} - set(SETTINGS))]
    for (setting, _, rounds, rule), attacks in sorted(
        grouped(row for row in rows if row.rounds > SHORT).items(),
        key=lambda one: (order.index(str(one[0][0])), one[0][1:]),
    ):
        base = base_of(attacks)
        tried = {
            attack: losses(own, base)
            for attack, own in attacks.items()
            if attack not in ("none", ALONE)
        }
        tried = {attack: values for attack, values in tried.items() if values}
        if tried:
            said = "; ".join(
                f"`{attack}` {reached(paired(attacks[attack], base), count=False)}, "
                f"{loss(tried[attack])}"
                for attack in by_value(tried)[:5]
            )
            yield f"| {setting} | {rounds} | `{rule}` | {reached(base)} | {said} |"


def by_value(tried: dict[str, list[float]]) -> list[str]:
    """Attacks, claims before sketches, the largest loss first."""
    return sorted(tried, key=lambda one: (len(tried[one]) < ENOUGH, -statistics.fmean(tried[one])))


def promise(rows: list[Row], setting: str = PROMISED) -> Iterator[str]:
    """The recommended rule under every attack, beside the honest clients alone."""
    long = [row for row in rows if place_of(row) == (setting, RECOMMENDED, ROUNDS)]
    alone = [row for row in long if row.attack == ALONE]
    yield "| attack | sampled | thrown out | share of the honest ones' gain lost | within 10 % |"
    yield "|---|---|---|---|---|"
    yield f"| *the ten honest clients alone* | {reached(alone)} | | | |"
    yield f"| *twelve honest clients* | {reached(r for r in long if r.attack == 'none')} | | | |"
    attacks = grouped(long).get((setting, 12, ROUNDS, RECOMMENDED), {})
    found = {
        attack: losses(own, alone)
        for attack, own in attacks.items()
        if attack not in ("none", ALONE)
    }
    for attack in by_value({one: values for one, values in found.items() if values}):
        values = found[attack]
        own = attacks[attack]
        cells = reached(own), thrown(own), loss(values), verdict(values)
        replayed = sum(not row.cpu_s for row in own)
        mark = f" (replayed: {replayed})" if replayed else ""
        yield f"| `{attack}`{mark} | {' | '.join(cells)} |"


def far(rows: list[Row]) -> Iterator[str]:
    """Attacks that stand out: rounds in which the recommended rule threw them out whole."""
    yield "| attack | thrown out |"
    yield "|---|---|"
    short = [row for row in rows if place_of(row) == ("adamw", RECOMMENDED, SHORT)]
    for row in sorted(short, key=lambda row: -row.closed):
        yield f"| `{row.attack}` | {thrown([row])} |"


def thrown(rows: list[Row]) -> str:
    """Share of rounds in which n - f vectors had each other for neighbours and nobody else."""
    return f"{100 * statistics.fmean(row.closed for row in rows):.0f} %"


def verdict(values: list[float]) -> str:
    """Whether a loss with one standard error is within the margin; sketches decide nothing."""
    if len(values) < ENOUGH:
        return "sketch: " + ("below" if statistics.fmean(values) <= MARGIN else "above")
    return "yes" if statistics.fmean(values) + error(values) <= MARGIN else "no"


def remedies(rows: list[Row]) -> Iterator[str]:
    """What was tried against attacks that last, seed by seed."""
    yield "| setting | rule | attack | seeds | alone | under attack | lost |"
    yield "|---|---|---|---|---|---|---|"
    for (setting, _, rounds, rule), attacks in grouped(rows).items():
        alone = attacks.get(ALONE, [])
        if rounds != ROUNDS or not (alone or setting == "adamw, trim 3"):
            continue
        lasting = ("stale", *LASTING)
        for attack in (one for one in attacks if one in lasting or rule != RECOMMENDED):
            if attack == ALONE:
                continue
            own = attacks[attack]
            seeds = sorted(row.seed for row in own)
            base = [row for row in alone if row.seed in seeds]
            lost = loss(losses(own, base))
            yield (
                f"| {setting} | `{rule}` | `{attack}` | {', '.join(map(str, seeds))} "
                f"| {reached(base, count=False)} | {reached(own, count=False)} | {lost} |"
            )


def recorded(_: list[Row]) -> Iterator[str]:
    """On recorded updates: what turned each rule's step most, with and without momentum."""
    played = robustness_recorded.rows()
    rules = list(dict.fromkeys(row.rule for row in played))
    seeds = len({row.seed for row in played})
    yield f"| rule ({seeds} seeds) | server's momentum | clients' momentum |"
    yield "|---|---|---|"
    for rule in rules:
        cells = []
        for momentum in (0.0, 0.9):
            found: dict[str, list[float]] = {}
            for row in played:
                if (row.rule, row.momentum) == (rule, momentum):
                    found.setdefault(row.attack, []).append(row.cosine)
            least = sorted(found, key=lambda one: statistics.fmean(found[one]))[:4]
            cells += ["; ".join(f"`{one}` {statistics.fmean(found[one]):.2f}" for one in least)]
        yield f"| `{rule}` | {' | '.join(cells)} |"


def backdoors(rows: list[Row]) -> Iterator[str]:
    """How often the target is answered behind the trigger, beside models of honest clients."""
    yield "| setting | rule | attackers | target behind the trigger | sampled without it |"
    yield "|---|---|---|---|---|"
    for (setting, _, rounds, rule), attacks in sorted(grouped(rows).items(), key=repr):
        doors = [attack for attack in attacks if attack.startswith("backdoor")]
        for attack in ["none", *sorted(doors)] if doors else []:
            own = attacks.get(attack, [])
            hit = reached(own, attrgetter("triggered"))
            yield f"| {setting}, {rounds} rounds | `{rule}` | {attack} | {hit} | {reached(own)} |"


def engines(rows: list[Row]) -> Iterator[str]:
    """The same settings, all clients in one batch and one after another."""
    yield "| seed | in one batch | one after another |"
    yield "|---|---|---|"
    of = {
        name: {
            row.seed: row.sampled
            for row in rows
            if (row.setting, row.rule, row.attack) == (name, "trimmed_mean", "none")
        }
        for name in (BATCHED, APART)
    }
    both = sorted(of[BATCHED].keys() & of[APART].keys())
    for seed in both:
        yield f"| {seed} | {of[BATCHED][seed]:.3f} | {of[APART][seed]:.3f} |"
    if len(both) >= ENOUGH:
        gaps = [of[APART][seed] - of[BATCHED][seed] for seed in both]
        means = [statistics.fmean(of[name][seed] for seed in both) for name in (BATCHED, APART)]
        yield f"| mean | {means[0]:.3f} | {means[1]:.3f} |"
        yield f"| difference | | {statistics.fmean(gaps):+.3f} ± {error(gaps):.3f} |"


TABLES = {
    "worst": worst,
    "promise": promise,
    "without momentum": partial(promise, setting="adamw"),
    "far": far,
    "remedies": remedies,
    "recorded": recorded,
    "backdoors": backdoors,
    "engines": engines,
}


# Pictures -----------------------------------------------------------------------------------------


def picture(rows: list[Row]) -> None:
    """A heat map: settings and rules by attacks, share of the gain lost."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = dict(pictured(rows))
    known = [*ATTACKS, *(limited(attack) for attack in ATTACKS)]
    met = {attack for cells in lines.values() for attack in cells}
    attacks = sorted(met, key=lambda one: (*known, one).index(one))
    grid = [[statistics.fmean(cells.get(one, [math.nan])) for one in attacks]
            for cells in lines.values()]  # fmt: skip
    figure, axes = plt.subplots(figsize=(0.42 * len(attacks) + 3, 0.3 * len(lines) + 1.6))
    colours = plt.get_cmap("YlOrRd").with_extremes(bad="white")
    axes.imshow(grid, cmap=colours, vmin=0.0, vmax=0.9, aspect="auto")
    for y, cells in enumerate(lines.values()):
        for x, one in enumerate(attacks):
            if values := cells.get(one):
                sketch = len(values) < ENOUGH
                text = f"{'~' if sketch else ''}{100 * statistics.fmean(values):.0f}"
                weight = "normal" if sketch else "bold"
                axes.text(x, y, text, ha="center", va="center", fontsize=8, fontweight=weight)
    axes.set_xticks(range(len(attacks)), attacks, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(lines)), lines, fontsize=8)
    axes.set_title("% of the gain lost (bold: three seeds or more; ~ a sketch)", fontsize=9)
    figure.savefig(PICTURE, dpi=110, bbox_inches="tight")
    plt.close(figure)


def pictured(rows: list[Row]) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Each line of the heat map, and what each attack took there."""
    order = {setting: place for place, setting in enumerate(SETTINGS)}
    groups = grouped(row for row in rows if row.rounds > SHORT)
    for key in sorted(groups, key=lambda one: (order.get(str(one[0]), 99), one[1:])):
        setting, _, rounds, rule = key
        attacks = groups[key]
        promise = (rule, rounds) == (RECOMMENDED, ROUNDS)
        base = attacks.get(ALONE, []) if promise or "none" not in attacks else attacks["none"]
        found = {
            attack: losses(own, base)
            for attack, own in attacks.items()
            if attack not in ("none", ALONE)
        }
        if found := {attack: values for attack, values in found.items() if values}:
            yield f"{setting}, {rounds} rounds: {rule}", found


def main() -> None:
    trained = finished()
    rows = [*trained, *same_runs(trained)]
    tables = {name: partial(table, rows) for name, table in TABLES.items()}
    write(PAGE, tables, str(__doc__), partial(picture, rows))


if __name__ == "__main__":
    main()
