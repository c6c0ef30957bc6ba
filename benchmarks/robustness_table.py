"""What ``benchmarks/robustness.py`` measured: a table of each rule's worst attacks, and heat maps.

Usage: ``python benchmarks/robustness_table.py``; the heat maps are written beside the CSV.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import fields

from robustness import ALONE, CSV, RULES, SETTINGS, Cell, Row, finished


def losses(rows: list[Row], base: str = "none") -> dict[tuple[str, ...], list[float]]:
    """What attacks took, as shares of the gain without them, paired by seed.

    Parameters
    ----------
    base:
        The attack that stands for none: ``none``, or the honest ones alone.
    """
    key = [field.name for field in fields(Cell) if field.name not in ("attack", "attackers")]
    gains = {
        tuple(getattr(row, name) for name in key): row.gain for row in rows if row.attack == base
    }
    taken: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        whole = gains.get(tuple(getattr(row, name) for name in key))
        if row.attack in ("none", ALONE) or not whole:
            continue
        cell = (row.setting, row.rule, row.attack, f"{row.attackers} of {row.clients}",
                str(row.rounds))  # fmt: skip
        taken.setdefault(cell, []).append(1 - row.gain / whole)
    return taken


def table(count: int = 3) -> Iterator[str]:
    """Each rule's worst attacks in each setting, in Markdown."""
    rows = finished()
    taken, accuracy = losses(rows), reached(rows)
    groups: dict[tuple[str, ...], list[tuple[float, tuple[str, ...]]]] = {}
    for cell, shares in taken.items():
        setting, rule, _, who, rounds = cell
        groups.setdefault((setting, who, rounds, rule), []).append((statistics.fmean(shares), cell))
    yield "| setting | attackers | rounds | rule | without | worst: share of the gain lost |"
    yield "|---|---|---|---|---|---|"
    for (setting, who, rounds, rule), found in sorted(groups.items()):
        worst_first = sorted(found, key=lambda one: -one[0])
        # Three seeds are evidence, one is a sketch: evidence comes first.
        ordered = sorted(worst_first, key=lambda one: -min(len(taken[one[1]]), 3))[:count]
        said = "; ".join(f"{cell[2]} {shown(taken[cell])}" for _, cell in ordered)
        alone = accuracy.get((setting, rule, "none", rounds), [])
        yield f"| {setting} | {who} | {rounds} | {rule} | {mean_of(alone)} | {said} |"


def reached(rows: list[Row]) -> dict[tuple[str, ...], list[float]]:
    """Accuracies at the end, by setting, rule, attack and rounds."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.clients == 12:
            cell = (row.setting, row.rule, row.attack, str(row.rounds))
            found.setdefault(cell, []).append(row.sampled)
    return found


def mean_of(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({len(values)})" if values else "-"


def shown(shares: list[float]) -> str:
    """A mean with its standard error, or a sketch marked as one."""
    mean = (
        f"**{100 * statistics.fmean(shares):.0f} %**"
        if len(shares) > 2
        else (f"{100 * statistics.fmean(shares):.0f} %")
    )
    if len(shares) < 3:
        return f"{mean} ({len(shares)} seed{'s' if len(shares) > 1 else ''}: a sketch)"
    error = statistics.stdev(shares) / math.sqrt(len(shares))
    return f"{mean} ± {100 * error:.0f} ({len(shares)})"


def picture() -> None:
    """A heat map a setting: rules by attacks, share of the gain lost at seed means."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in finished() if row.rounds == 12 and row.clients == 12]
    taken = losses(rows)
    for setting in SETTINGS:
        cells = {cell[1:3]: shares for cell, shares in taken.items() if cell[0] == setting}
        if not cells:
            continue
        rules = [rule for rule in RULES if any(rule == found for found, _ in cells)]
        attacks = sorted({attack for _, attack in cells})
        figure, axes = plt.subplots(figsize=(0.42 * len(attacks) + 3, 0.42 * len(rules) + 2.6))
        grid = [[cells.get((rule, attack)) for attack in attacks] for rule in rules]
        values = [[statistics.fmean(one) if one else math.nan for one in line] for line in grid]
        axes.imshow(values, cmap="RdYlGn_r", vmin=0, vmax=0.6, aspect="auto")
        for y, line in enumerate(grid):
            for x, shares in enumerate(line):
                if shares:
                    text = f"{100 * statistics.fmean(shares):.0f}"
                    weight = "bold" if len(shares) > 2 else "normal"
                    axes.text(x, y, text, ha="center", va="center", fontsize=7, fontweight=weight)
        axes.set_xticks(range(len(attacks)), attacks, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(rules)), rules, fontsize=7)
        axes.set_title(f"{setting}: % of the gain lost (bold: three seeds)", fontsize=8)
        figure.savefig(CSV.with_name(f"robustness_{setting.replace(' ', '_')}.png"),
                       dpi=150, bbox_inches="tight")  # fmt: skip
        plt.close(figure)


if __name__ == "__main__":
    print("\n".join(table()))
    picture()
