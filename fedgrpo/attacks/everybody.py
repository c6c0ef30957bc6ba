"""Attacks by who sees what all others send in the round: the worst that is assumed of colluders.

``H`` are the honest clients' vectors, h of them, with mean ``m`` and standard deviation ``s`` in
each coordinate.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.attacks import attack
from fedgrpo.attacks.knowledge import Knowledge

Floats = NDArray[np.float64]


def honest_of(knowledge: Knowledge) -> Floats:
    """What the others send; shape (h, size), h at least 1."""
    assert knowledge.honest is not None  # Checked before any of these is called.
    return knowledge.honest


@attack("fang", everybody=True)
def fang(vector: Floats, knowledge: Knowledge, *, factor: float = 2.0) -> Floats:
    """Beyond the honest range, against the sign of the honest mean in each coordinate: directed
    deviation with full knowledge (arXiv 1911.11815, section 4.3).

    Options: ``factor``, the paper's b: how far beyond the extreme value.
    """
    honest = honest_of(knowledge)
    low, high = honest.min(axis=0), honest.max(axis=0)
    below = np.where(low < 0, low * factor, low / factor)
    above = np.where(high > 0, high * factor, high / factor)
    return np.asarray(np.where(honest.mean(axis=0) > 0, below, above))


@attack("alie", everybody=True)
def alie(vector: Floats, knowledge: Knowledge, *, z: float | None = None) -> Floats:
    """``m - z s``: a little is enough (arXiv 1902.06156, algorithm 3).

    Options: ``z``. None takes the paper's, the largest with which enough honest ones lie further
    out; for few attackers among few it is 0, or below 0 and taken for 0, and they send the mean.
    """
    honest = honest_of(knowledge)
    score = alie_z(knowledge.clients, knowledge.attackers) if z is None else z
    return np.asarray(honest.mean(axis=0) - score * honest.std(axis=0))


def alie_z(clients: int, attackers: int) -> float:
    """The paper's z for f attackers among n clients, at least 0: with ``s = floor(n/2 + 1) - f``
    supporters wanted, the normal quantile at ``(n - f - s) / (n - f)``.
    """
    honest = clients - attackers
    supporters = clients // 2 + 1 - attackers
    share = min((honest - supporters) / honest, 1 - 1e-9)
    return max(0.0, NormalDist().inv_cdf(share))


@attack("alie_dir", everybody=True)
def alie_dir(vector: Floats, knowledge: Knowledge, *, z: float = 1.5) -> Floats:
    """``m - z s sign(m)``: a little is enough (arXiv 1902.06156), against the honest mean in each
    coordinate.
    """
    honest = honest_of(knowledge)
    mean = honest.mean(axis=0)
    return np.asarray(mean - z * honest.std(axis=0) * np.sign(mean))


@attack("ipm", everybody=True)
def ipm(vector: Floats, knowledge: Knowledge, *, epsilon: float = 0.5) -> Floats:
    """``-epsilon m``: inner product manipulation (arXiv 1903.03936), small enough not to be far
    from the others, 0.5, or large, 2.
    """
    return np.asarray(-epsilon * honest_of(knowledge).mean(axis=0))


@attack("mimic", everybody=True)
def mimic(vector: Floats, knowledge: Knowledge, *, client: int | None = None) -> Floats:
    """What one honest client sends, again: its say is multiplied (arXiv 2006.09365, section 4).

    Options: ``client``, whose, by its place among the honest ones. None takes, in each round, the
    one that is furthest out along the direction in which the honest updates differ most.
    """
    honest = honest_of(knowledge)
    if client is not None:
        return np.asarray(honest[client % len(honest)])
    gaps = (honest - honest.mean(axis=0))[:, : knowledge.update]
    # Of the h x h matrix of inner products, the first eigenvector has each one's coordinate.
    along = np.linalg.eigh(gaps @ gaps.T)[1][:, -1]
    return np.asarray(honest[int(np.argmax(np.abs(along)))])


Direction = Literal["unit", "sign", "std", "worst", "undo", "fixed"]


@attack("min_max", everybody=True)
def min_max(vector: Floats, knowledge: Knowledge, *, direction: Direction = "worst") -> Floats:
    """As far from the honest mean as its largest distance to an honest update does not exceed the
    largest among these (Shejwalkar and Houmansadr, doi 10.14722/ndss.2021.24498, equation 4).

    Options: ``direction``, the paper's perturbation: against the mean, its sign, or the standard
    deviation; ``worst`` takes the one that ends furthest against the mean. Two more last from round
    to round (arXiv 2012.10333: what is small in each adds up): ``undo`` goes back to where the run
    began, ``fixed`` one way for ever, of random signs.
    """
    return _furthest(knowledge, direction, summed=False)


@attack("min_sum", everybody=True)
def min_sum(vector: Floats, knowledge: Knowledge, *, direction: Direction = "worst") -> Floats:
    """As :func:`min_max`, with the sum of squared distances in the place of the largest
    (equation 5).
    """
    return _furthest(knowledge, direction, summed=True)


def _furthest(knowledge: Knowledge, direction: Direction, *, summed: bool) -> Floats:
    cut, honest = knowledge.update, honest_of(knowledge)
    updates, sent = honest[:, :cut], np.array(honest.mean(axis=0))
    mean = updates.mean(axis=0)
    ends = [
        mean + _reach(updates, unit, summed=summed) * unit
        for way in _ways(knowledge, updates, direction)
        if (unit := way / max(float(np.linalg.norm(way)), 1e-300)).any()
    ]
    sent[:cut] = min(ends, key=lambda end: float(end @ mean), default=mean)
    return sent


def _ways(knowledge: Knowledge, updates: Floats, direction: Direction) -> list[Floats]:
    """Ways to go from the mean, of any length."""
    mean = updates.mean(axis=0)
    if direction == "undo":
        return [] if knowledge.way is None else [-knowledge.way[: knowledge.update]]
    if direction == "fixed":
        signs = np.random.default_rng(knowledge.seed).choice([-1.0, 1.0], mean.size)
        return [signs]
    ways = {"unit": -mean, "sign": -np.sign(mean), "std": -updates.std(axis=0)}
    return list(ways.values()) if direction == "worst" else [ways[direction]]


def _reach(updates: Floats, unit: Floats, *, summed: bool) -> float:
    """The largest g for which ``mean + g unit`` is no further from the updates than they are.

    ``|mean + g u - x|^2 = g^2 + 2 g u.(mean - x) + |mean - x|^2`` for a unit vector u, and the
    limit is on its maximum or its sum: each is a quadratic equation.
    """
    gaps = updates.mean(axis=0) - updates
    slopes, squares = gaps @ unit, np.einsum("ij,ij->i", gaps, gaps)
    between = np.stack([((updates - one) ** 2).sum(axis=1) for one in updates])
    if summed:
        slopes, squares = slopes.mean(keepdims=True), squares.mean(keepdims=True)
        limit = between.mean(axis=1).max()
    else:
        limit = between.max()
    roots = -slopes + np.sqrt(np.maximum(slopes**2 - squares + limit, 0.0))
    return max(0.0, float(roots.min()))


@attack("concentrated", everybody=True)
def concentrated(
    vector: Floats, knowledge: Knowledge, *, coordinates: int = 20, length: float = 1.0
) -> Floats:
    """All of the length in the few coordinates where the honest mean is largest, reversed: what a
    distance in many dimensions overlooks (arXiv 1802.07927).

    Options: ``coordinates``, how many, and ``length`` in clipping norms.
    """
    honest = honest_of(knowledge)
    mean, sent = honest.mean(axis=0), np.zeros_like(vector)
    count = max(1, min(coordinates, knowledge.update))
    most = np.argsort(-np.abs(mean[: knowledge.update]), kind="stable")[:count]
    sent[most] = -np.sign(mean[most]) * length / np.sqrt(count)
    return sent
