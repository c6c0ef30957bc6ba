"""The panels of a picture: each draws the figures that belong to it, as far as rows have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedgrpo.report.figures import (
    Series,
    by_name,
    lowest,
    of_panel,
    rewards_in_training,
    series,
    solved_within,
)
from fedgrpo.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    SKY,
    curve,
    dress,
    legend,
    room_above,
    stack,
)
from fedgrpo.report.records import PHASES, RoundRow, best_evaluation
from fedgrpo.report.wording import short_name, unit_of
from fedgrpo.settings.protocols import PROTOCOLS

Rows = Sequence[RoundRow]

# No run has the stages of two protocols.
PHASE_COLOURS = {"step": BLUE, "train": BLUE, "aggregate": RED, "evaluate": PURPLE} | {
    phase.name: colour
    for protocol in PROTOCOLS.values()
    for phase, colour in zip(protocol.phases, cycle((SKY, GREEN, ORANGE)))
}
OWN_LOOK = {
    "held-out, sampled": (BLUE, "o"),
    "held-out, greedy": (ORANGE, "s"),
    "held-out, from the start": (RED, "o"),
    "clipping norm": (INK, ""),
}
"""Colour and marker of curves that look the same wherever they are drawn."""
COLOURS = (GREY, GREEN, PURPLE, SKY)
MANY_COLOURS = (BLUE, GREEN, PURPLE, RED, SKY, ORANGE)

SMALL_KL = 1e-3


@dataclass(frozen=True)
class Panel:
    """A part of a picture, and whether rows have anything for it."""

    draw: Callable[[Axes, Rows], None]
    has: Callable[[Rows], bool]


def learning(axes: Axes, rows: Rows) -> None:
    """Held-out accuracy, and reward in training."""
    _curves(axes, rows, "learning", thin=True)
    sampled, greedy = series(rows, lambda row: row.sampled), series(rows, lambda row: row.greedy)
    if sampled.values:
        dashes = (0, (4, 3))
        axes.axhline(sampled.values[0], color=BLUE, linewidth=0.8, linestyle=dashes, label="start")
    if sampled.values:
        best = best_evaluation(rows)
        axes.plot(best.round, best.sampled or 0.0, "o", ms=10, mfc="none", mec=INK, label="best")
    _shade_skipped(axes, rows)
    room_above(axes, 0.25)
    _dress(axes, rows, _learnt(rows, sampled.values, greedy.values))
    legend(axes, loc="upper left", ncols=3)


def _learnt(rows: Rows, sampled: Sequence[float], greedy: Sequence[float]) -> str:
    changes = [
        f"{name} {values[0]:.2f} → {values[-1]:.2f}"
        for name, values in (("sampled", sampled), ("greedy", greedy))
        if len(values) > 1
    ]
    title = f"Held-out {'reward' if rows[-1].alone else 'accuracy'}"
    return title + (f": {', '.join(changes)}" if changes else ", and in training")


def privacy(axes: Axes, rows: Rows) -> None:
    """Epsilon spent so far."""
    at, spent = series(rows, lambda row: row.epsilon)
    curve(axes, Series(at, spent), PURPLE, width=2.0)
    axes.fill_between(at, spent, color=PURPLE, alpha=0.15, linewidth=0)
    axes.annotate(
        f"{spent[-1]:.2f}",
        (at[-1], spent[-1]),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        fontweight="bold",
        color=INK,
    )
    axes.set_ylim(0, max(spent) * 1.18 or 1.0)
    against = "all but the committee" if any(row.members for row in rows) else "the worst adversary"
    _dress(axes, rows, f"Privacy spent so far: epsilon against {against}")


def no_privacy(axes: Axes, rows: Rows) -> None:
    """Nothing but the words."""
    words = "no differential privacy"
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=GREY, fontsize=13)
    _dress(axes, rows, "Privacy spent")
    axes.set(xticks=[], yticks=[], xlabel="")


def rewards(axes: Axes, rows: Rows) -> None:
    """Each reward function by itself: in training (lines), held-out (dots)."""
    _named(axes, rewards_in_training(rows), by_name(rows, "held_out_rewards"))
    _dress(axes, rows, "By reward function: in training (lines), held-out (dots)")


def groups(axes: Axes, rows: Rows) -> None:
    """Held-out accuracy of each group of prompts: sampled."""
    every = by_name(rows, "held_out_by")
    found = lowest(every, len(MANY_COLOURS))
    _named(axes, found, found)
    which = "" if len(found) == len(every) else f": the lowest {len(found)} of {len(every)}"
    _dress(axes, rows, f"Held-out reward by group, sampled{which}")


def _named(axes: Axes, lines: Mapping[str, Series], dots: Mapping[str, Series]) -> None:
    names = dict.fromkeys([*lines, *dots])
    for name, colour in zip(names, cycle(MANY_COLOURS), strict=False):
        if name in lines:
            curve(axes, lines[name], colour, short_name(name), faint=False)
        if name in dots:
            label = "" if name in lines else short_name(name)
            axes.plot(*dots[name], "o", color=colour, markersize=4.5, label=label)
    room_above(axes, 0.2)
    legend(axes, loc="upper left", ncols=4)


def divergence(axes: Axes, rows: Rows) -> None:
    """Drift from the start, and within a round."""
    values = _curves(axes, rows, "divergence")
    # One round moves a policy far less than all of them; below the threshold the scale is linear,
    # since privacy noise may report a small KL below zero.
    axes.set_yscale("symlog", linthresh=SMALL_KL)
    lowest, highest = min([*values, -SMALL_KL / 5]), max([*values, SMALL_KL])
    axes.set_ylim(lowest, 2 * highest)
    _dress(axes, rows, "KL, nats (log scale)")
    legend(axes)


def norms(axes: Axes, rows: Rows) -> None:
    """Clipping norm and length of the update."""
    _curves(axes, [row for row in rows if row.round > 0], "norms")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    _dress(axes, rows, "L2 norms")
    legend(axes)


def entropy(axes: Axes, rows: Rows) -> None:
    """How undecided the model is."""
    values = _curves(axes, rows, "entropy")
    axes.set_ylim(0, 1.1 * max([*values, 1e-3]))
    _dress(axes, rows, "Entropy, nats a token")


def length(axes: Axes, rows: Rows) -> None:
    """How long completions are."""
    values = _curves(axes, rows, "length")
    axes.set_ylim(0, 1.1 * max([*values, 1e-3]))
    _dress(axes, rows, "Completion length, tokens")


def shares(axes: Axes, rows: Rows) -> None:
    """Completions cut, groups without signal."""
    _curves(axes, rows, "shares")
    axes.set_ylim(0, 1)
    _dress(axes, rows, "Shares")
    legend(axes)


def own(axes: Axes, rows: Rows) -> None:
    """Metrics of users' own, on one scale."""
    _curves(axes, rows, "own")
    _dress(axes, rows, "Your own metrics, in training")
    legend(axes)


def solved(axes: Axes, rows: Rows) -> None:
    """Prompts that one of k completions solves, before and after."""
    for (name, line), colour in zip(solved_within(rows).items(), cycle(MANY_COLOURS), strict=False):
        curve(axes, line, colour, name, marker="o")
    axes.set_ylim(0, 1.05)
    _dress(axes, rows, "Held-out, solved by one of k")
    legend(axes)


def nodes(axes: Axes, rows: Rows) -> None:
    """Who took part."""
    trained = [row for row in rows if row.round > 0]
    finished, dropped = [row.finished for row in trained], [row.dropped for row in trained]
    at = [row.round for row in trained]
    stack(axes, at, [("finished", GREEN, finished), ("dropped", RED, dropped)])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _dress(axes, rows, "Nodes")
    legend(axes)


def time(axes: Axes, rows: Rows) -> None:
    """Where time goes: phases of the round as a whole."""
    timed = [phase for phase in PHASES if any(phase in row.seconds for row in rows)]
    spent = {phase: [row.seconds.get(phase, 0.0) for row in rows] for phase in timed}
    at = [row.round for row in rows]
    stack(axes, at, [(phase, PHASE_COLOURS[phase], spent[phase]) for phase in timed])
    _dress(axes, rows, "Time, s")
    legend(axes)


def _shows(panel: str) -> Callable[[Rows], bool]:
    return lambda rows: bool(of_panel(rows, panel))


LARGE = (
    Panel(privacy, lambda rows: any(row.epsilon is not None for row in rows)),
    Panel(groups, lambda rows: bool(by_name(rows, "held_out_by"))),
    Panel(rewards, lambda rows: bool(by_name(rows, "held_out_rewards"))),
    Panel(no_privacy, lambda rows: True),
)
"""Beside learning, the first that fits."""
SMALL = (
    Panel(divergence, lambda rows: True),
    Panel(solved, lambda rows: bool(solved_within(rows))),
    Panel(norms, lambda rows: not rows[-1].alone),
    Panel(entropy, _shows("entropy")),
    Panel(own, _shows("own")),
    Panel(nodes, lambda rows: not rows[-1].alone),
    Panel(length, _shows("length")),
    Panel(shares, _shows("shares")),
    Panel(time, lambda rows: True),
)
"""Below, the first four that fit."""


def _curves(axes: Axes, rows: Rows, panel: str, *, thin: bool = False) -> list[float]:
    """Draw the figures of a panel, and return all their values."""
    values: list[float] = []
    colours = cycle(COLOURS if thin else (BLUE, GREEN, SKY, PURPLE))
    for figure, line in of_panel(rows, panel):
        colour, marker = OWN_LOOK.get(figure.curve) or (next(colours), "")
        width = 1.0 if thin and not marker else 1.6
        curve(axes, line, colour, figure.curve, marker=marker, width=width)
        values += line.values
    return values


def _shade_skipped(axes: Axes, rows: Rows) -> None:
    skipped = [row.round for row in rows if row.round > 0 and not row.applied]
    for index, at in enumerate(skipped):
        label = "" if index else f"{unit_of(rows)} without effect"
        axes.axvspan(at - 0.5, at + 0.5, color=PALE, linewidth=0, zorder=0, label=label)


def _dress(axes: Axes, rows: Rows, title: str) -> None:
    last = max(rows[-1].round, 1)
    margin = max(0.5, 0.02 * last)  # Or marks at the ends are cut in half.
    axes.set_xlim(-margin, last + margin)
    dress(axes, title, unit_of(rows))
