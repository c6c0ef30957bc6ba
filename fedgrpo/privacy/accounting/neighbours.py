"""What else than one unit may differ: copies of a text at several clients, and replaced units.

Every bound here rests on one inequality (Kahane 1985, "Sur le chaos multiplicatif"): let X and Y be
Gaussian vectors with covariances K and L, p real numbers with p_i p_j (L_ij - K_ij) >= 0 for all i
and j, and F convex. Then E F(sum_i p_i e^(X_i - K_ii / 2)) <= E F(sum_i p_i e^(Y_i - L_ii / 2)).

A release is N(mu + v_S, sigma^2 I), with S the sampled ones of the units that differ. Given who
else is sampled, its density over that of N(mu, sigma^2 I) is a sum of weights times e^(<v_S, x> -
|v_S|^2 / 2) in units of sigma, with x a standard normal vector. The hockey-stick divergence between
two such releases is the expectation of a convex function of that sum, or of a difference of two; so
by the inequality it is largest where the covariances <v_S, v_S'> are as large as the lengths allow
within a distribution, and as small as they allow between the two. Both are reached on a line.
Mixing over who else is sampled cannot enlarge it, since the divergence is jointly convex.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from scipy.stats import binom

from fedgrpo.privacy.accounting.composition import Mechanism, compose_counted
from fedgrpo.privacy.accounting.mixtures import Curve, Pair, compose_pairs
from fedgrpo.privacy.accounting.overflow import with_overflow

COPIES = (2, 5, 10)
"""Numbers of copies for which figures are printed."""

History = tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Neighbours:
    """What releases cost for other differences than one unit added or removed."""

    replaced: float
    """Epsilon of a unit that is replaced by another."""
    copies: Mapping[int, float]
    """Epsilon of each number of copies of a unit at as many clients."""


def neighbours_of(
    counted: Mapping[Mechanism, int], delta: float, *, shared: bool, limited: int = 0
) -> Neighbours:
    """Work out the figures that are printed; parameters as for :func:`epsilon_of_copies`."""
    return Neighbours(
        epsilon_of_replacement(counted, delta, limited=limited),
        {m: epsilon_of_copies(counted, m, delta, shared=shared, limited=limited) for m in COPIES},
    )


def epsilon_of_copies(
    counted: Mapping[Mechanism, int], copies: int, delta: float, *, shared: bool, limited: int = 0
) -> float:
    """Return an upper bound on epsilon of a unit that as many clients have, one copy each.

    Neighbours: all copies there, and all replaced by empty prompts. Copies at one client are one
    unit and need no more than that unit's own figure.

    * Each client adds its own noise (``shared=False``): m independent releases of noise z and rate
      q in each round, all seen by the adversary.
    * One noise covers all (``shared=True``): Binomial(m, q) of the copies are sampled, each of
      which moves the released vector by at most 1, so k of them by at most k (also through the
      robust rule, whose bound leaves the other clients' vectors free). The worst case is the
      mixture of N(k, z^2) by that binomial against N(0, z^2), in either direction. That is also a
      bound for any other arrangement, since lengths of at most k are all that it asks for.

    Parameters
    ----------
    counted:
        Each client's releases, and how many of each kind.
    copies:
        m, at least 1.
    delta:
        In (0, 1).
    shared:
        Whether one noise covers all copies.
    limited:
        Releases of one client that have a limit of time, see
        :func:`fedgrpo.privacy.accounting.overflow.with_overflow`.

    Returns
    -------
    float
        Infinity where the accountant has no bound.
    """
    if not shared or copies == 1:
        cost = partial(compose_counted, {one: copies * times for one, times in counted.items()})
    elif _whole(counted):
        cost = partial(compose_counted, _nearer(counted, copies))
    else:
        cost = partial(_worst, _history(counted), copies, delta)
    return with_overflow(cost, limited * copies, delta)


def epsilon_of_replacement(
    counted: Mapping[Mechanism, int], delta: float, *, limited: int = 0
) -> float:
    """Return an upper bound on epsilon of a unit that is replaced by any other one.

    That is also what one row more of a text means that the client has already: it changes what its
    unit contributes, and adds none. Where the unit is sampled, the release moves from N(v, z^2) to
    N(w, z^2) with v and w of length at most 1. The worst case is (1 - q) N(0, z^2) + q N(1, z^2)
    against (1 - q) N(0, z^2) + q N(-1, z^2).

    Parameters
    ----------
    counted, delta, limited:
        As for :func:`epsilon_of_copies`.

    Returns
    -------
    float
        Infinity where the accountant has no bound.
    """
    if _whole(counted):
        cost = partial(compose_counted, _nearer(counted, 2))
    else:
        cost = partial(_worst, _history(counted), 0, delta)
    return with_overflow(cost, limited, delta)


def _whole(counted: Mapping[Mechanism, int]) -> bool:
    """Whether nothing was sampled, so that the worst case is a single Gaussian that is shifted."""
    return all(one.sample_rate == 1 for one in counted)


def _nearer(counted: Mapping[Mechanism, int], shift: int) -> dict[Mechanism, int]:
    return {Mechanism(one.noise_multiplier / shift): times for one, times in counted.items()}


def _history(counted: Mapping[Mechanism, int]) -> History:
    return tuple(
        sorted((one.noise_multiplier, one.sample_rate, times) for one, times in counted.items())
    )


def _worst(history: History, copies: int, delta: float, left: float) -> float:
    """Epsilon at what is left of delta, of the worse direction."""
    curves = _curves(history, copies, delta)
    return max(curve.epsilon(left) for curve in curves) if curves else math.inf


@lru_cache(maxsize=16)
def _curves(history: History, copies: int, delta: float) -> tuple[Curve, ...] | None:
    """Cached, since it takes a few tenths of a second; no copies stand for a replaced unit."""
    pairs = ((_pair(noise, rate, copies), times) for noise, rate, times in history)
    return compose_pairs(pairs, delta)


def _pair(noise: float, rate: float, copies: int) -> Pair:
    if not copies:
        return Pair(noise, _present(rate, 1.0), _present(rate, -1.0))
    counts = range(copies + 1)
    weights = binom.pmf(counts, copies, rate).tolist()
    upper = tuple((w, float(k)) for k, w in zip(counts, weights, strict=True) if w > 0)
    return Pair(noise, upper, ((1.0, 0.0),))


def _present(rate: float, mean: float) -> tuple[tuple[float, float], ...]:
    present = ((rate, mean),)
    return present if rate == 1 else ((1 - rate, 0.0), *present)
