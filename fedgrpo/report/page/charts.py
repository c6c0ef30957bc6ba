"""Which curves a page shows: data only, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from fedgrpo.report.figures import (
    Series,
    by_name,
    lowest,
    metric,
    own_names,
    rewards_in_training,
    series,
    solved_within,
)
from fedgrpo.report.page.ledgers import CheckedLedger
from fedgrpo.report.reader import Run
from fedgrpo.report.records import RoundRow
from fedgrpo.report.wording import short_name, unit_of
from fedgrpo.settings import OWN

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's, told apart with every common colour blindness; the first runs' contrast most."""
DASHES = ("solid", "dashed", "dotted", "dashdot")
MOST_GROUPS = 6
"""Groups of held-out prompts that have a chart; the table of figures has all."""
LEAST_BAND = 5
"""Points from which a band says anything."""


@dataclass(frozen=True)
class Line:
    """A curve with its look, and the half-width of the band around it."""

    label: str
    points: Series
    colour: str
    dash: str = "solid"
    dots: bool = False
    band: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """A small picture with its words."""

    title: str
    words: str
    lines: Sequence[Line]
    unit: str


@dataclass(frozen=True)
class Shown:
    """A run on a page: its name there, what its ledger says, and its colour."""

    name: str
    run: Run
    ledger: CheckedLedger | None
    colour: str

    @property
    def rows(self) -> list[RoundRow]:
        """The run's."""
        return self.run.rows


Read = Callable[[RoundRow], float | None]


def charts(runs: Sequence[Shown]) -> list[Chart]:
    """Every chart for which one of the runs has a figure."""
    first = [_held_out(runs), _solved(runs), _reward(runs), *_each(runs), *_own(runs)]
    found = [*first, *_by_group(runs), *_small(runs)]
    return [chart for chart in found if chart.lines]


def _chart(runs: Sequence[Shown], title: str, words: str, lines: Iterator[Line]) -> Chart:
    unit = " or ".join(dict.fromkeys(unit_of(shown.rows) for shown in runs))
    return Chart(title, words, [line for line in lines if line.points.values], unit)


def _several(
    runs: Sequence[Shown], ways: Mapping[str, Read], *, dots: bool = False
) -> Iterator[Line]:
    """Lines of some figures: a colour for each run and a dash for each figure, or, of one run, a
    colour for each figure.
    """
    for shown in runs:
        for place, (label, read) in enumerate(ways.items()):
            colour = shown.colour if len(runs) > 1 else COLOURS[place % len(COLOURS)]
            yield Line(
                _label(runs, shown, label if len(ways) > 1 else ""),
                series(shown.rows, read),
                colour,
                DASHES[place % len(DASHES)] if len(runs) > 1 else "solid",
                dots,
            )


def _label(runs: Sequence[Shown], shown: Shown, label: str) -> str:
    return ", ".join(
        [*([shown.name] if len(runs) > 1 or not label else []), *([label] * bool(label))]
    )


def _held_out(runs: Sequence[Shown]) -> Chart:
    ways: dict[str, Read] = {"sampled": lambda row: row.sampled, "greedy": lambda row: row.greedy}
    words = (
        "Mean reward on prompts that nobody trained on. Sampled: answers as users would get them; "
        "greedy: the likeliest answers."
    )
    return _chart(runs, "Held-out reward", words, _several(runs, ways, dots=True))


def _solved(runs: Sequence[Shown]) -> Chart:
    words = "Share of held-out prompts that one of k sampled answers solves, before and after."

    def lines() -> Iterator[Line]:
        for shown in runs:
            for place, (name, points) in enumerate(solved_within(shown.rows).items()):
                colour = shown.colour if len(runs) > 1 else COLOURS[place % len(COLOURS)]
                dash = DASHES[place % len(DASHES)] if len(runs) > 1 else "solid"
                yield Line(_label(runs, shown, name), points, colour, dash, True)

    return _chart(runs, "Solved by one of k answers", words, lines())


def _reward(runs: Sequence[Shown]) -> Chart:
    words = (
        "Mean reward of the answers trained on. The line is the mean over neighbouring rounds, the "
        "band one standard deviation among them: chance, and under privacy the noise."
    )

    def lines() -> Iterator[Line]:
        for shown in runs:
            points = series(shown.rows, metric("reward"))
            mean, spread = banded(points)
            yield Line(shown.name, mean, shown.colour, band=spread)

    return _chart(runs, "Reward in training", words, lines())


def banded(points: Series) -> tuple[Series, list[float]]:
    """Means over neighbouring rounds, and their standard deviations; few points as they are."""
    at, values = points
    if len(values) < LEAST_BAND:
        return points, []
    reach = max(1, len(values) // 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return Series(at, [fmean(w) for w in windows]), [pstdev(w) for w in windows]


def _each(runs: Sequence[Shown]) -> Iterator[Chart]:
    """A chart for each reward function."""
    held = [by_name(shown.rows, "held_out_rewards") for shown in runs]
    told = [rewards_in_training(shown.rows) for shown in runs]
    for name in dict.fromkeys(name for found in (*held, *told) for name in found):

        def lines(name: str = name) -> Iterator[Line]:
            for shown, dots, curve in zip(runs, held, told, strict=True):
                for found, label in ((dots, "held-out"), (curve, "in training")):
                    points = found.get(name, Series([], []))
                    smooth = points if label == "held-out" else banded(points)[0]
                    yield Line(
                        _label(runs, shown, label),
                        smooth,
                        shown.colour,
                        "solid" if label == "held-out" else "dotted",
                        label == "held-out",
                    )

        words = "Mean of this reward function alone, before its weight."
        yield _chart(runs, f"Reward: {short_name(name)}", words, lines())


def _own(runs: Sequence[Shown]) -> Iterator[Chart]:
    """A chart for each metric of users' own."""
    words = (
        "A metric of your own, in training. In a federation it carries the noise of its release."
    )
    for name in dict.fromkeys(name for shown in runs for name in own_names(shown.rows)):
        yield _chart(runs, f"Metric: {name}", words, _several(runs, {"": metric(OWN + name)}))


def _by_group(runs: Sequence[Shown]) -> Iterator[Chart]:
    """A chart for each group of held-out prompts; of many, for those lowest in the end."""
    found = [lowest(by_name(shown.rows, "held_out_by"), MOST_GROUPS) for shown in runs]
    for name in dict.fromkeys(name for groups in found for name in groups):

        def lines(name: str = name) -> Iterator[Line]:
            for shown, groups in zip(runs, found, strict=True):
                yield Line(shown.name, groups.get(name, Series([], [])), shown.colour, dots=True)

        yield _chart(
            runs, f"Held-out: {name}", "Held-out reward of these prompts, sampled.", lines()
        )


def _small(runs: Sequence[Shown]) -> Iterator[Chart]:
    kl = "How far the model has moved, in nats a token on held-out prompts."
    yield _chart(
        runs, "KL to the start", kl, _several(runs, {"": lambda row: row.kl_base}, dots=True)
    )
    entropy = "How undecided the model is between next tokens, in nats. Near zero it has hardened."
    yield _chart(runs, "Entropy", entropy, _several(runs, {"": metric("entropy")}))
    norms: dict[str, Read] = {
        "update": lambda row: row.update_norm,
        "clipping norm": lambda row: row.clipping_norm if row.round else None,
        "gradient": metric("grad_norm"),
    }
    words = "Length of what moves the model, and the limit of one contribution (clipping norm)."
    yield _chart(runs, "Norms", words, _several(runs, norms))
    yield _chart(
        runs,
        "Privacy spent: epsilon",
        "For each adversary, after each round. Smaller is better hidden; it never falls.",
        _epsilon(runs),
    )
    sizes: dict[str, Read] = {
        "to the clients": lambda row: _mega(row, "sent"),
        "from the clients": lambda row: _mega(row, "received"),
    }
    words = "What the server sent and received in a round, in megabytes, over all clients."
    yield _chart(runs, "Traffic, MB", words, _several(runs, sizes))


def _epsilon(runs: Sequence[Shown]) -> Iterator[Line]:
    for shown in runs:
        found = shown.ledger.epsilon if shown.ledger else {}
        for place, (adversary, points) in enumerate(found.items()):
            colour = shown.colour if len(runs) > 1 else COLOURS[place % len(COLOURS)]
            dash = DASHES[place % len(DASHES)] if len(runs) > 1 else "solid"
            yield Line(_label(runs, shown, adversary), points, colour, dash)


def _mega(row: RoundRow, way: str) -> float | None:
    return row.bytes[way] / 1e6 if way in row.bytes else None
