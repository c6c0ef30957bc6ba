"""What Gaussian releases cost: repeated, on samples, and those of different kinds together."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from scipy.special import log_ndtr

from fedgrpo.ground.errors import PrivacyError

_PRV_LARGEST_EPSILON = 64.0
"""Beyond it the PRV accountant's grid grows without use (8 s and no result at epsilon 2,000)."""

_PRV_LEAST_DELTA = 1e-9
"""Below it, round-off in the PRV accountant's Fourier transform is no longer small beside delta."""

_PRV_ERROR, _PRV_SMALL, _PRV_SHARE = 0.01, 0.5, 0.01
"""Error of epsilon that the PRV accountant is first asked for, which is part of its upper end; and
the epsilon below which it is asked again, for this share of what was found. At 0.1 a tenth of the
figure would be the error alone, and the noise for it 7 % too much."""


@dataclass(frozen=True)
class Mechanism:
    """One Gaussian release, as the strongest adversary of its settings sees it; raises PrivacyError
    if a field is out of range.
    """

    noise_multiplier: float
    """Noise standard deviation over L2 sensitivity, positive."""
    sample_rate: float = 1.0
    """Probability with which each unit was in the (secret, Poisson) sample, in (0, 1]. 1 means that
    everything took part."""

    def __post_init__(self) -> None:
        if not (0 < self.noise_multiplier < math.inf and 0 < self.sample_rate <= 1):
            raise PrivacyError(
                f"no release has noise multiplier = {self.noise_multiplier} and sample rate = "
                f"{self.sample_rate}",
                cure="use a positive noise and a rate in (0, 1]",
            )


def epsilon_gaussian(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return the exact epsilon of ``rounds`` Gaussian mechanisms without sampling.

    T mechanisms of noise z are one of noise z / sqrt(T): with mu = sqrt(T) / z, delta(eps) is
    Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) (Balle and Wang 2018, arXiv 1805.06530, theorem
    8), solved in log space, which stays exact where e^eps overflows. Raises PrivacyError if an
    argument is out of range.

    Parameters
    ----------
    noise_multiplier:
        Noise standard deviation over L2 sensitivity, positive.
    rounds:
        Number of mechanisms, at least 0.
    delta:
        In (0, 1).

    Returns
    -------
    float
        Epsilon, 0 for no rounds.
    """
    _check(noise_multiplier, 1.0, rounds, delta)
    if rounds == 0:
        return 0.0
    from scipy.optimize import brentq

    mu = math.sqrt(rounds) / noise_multiplier
    target = math.log(delta)

    def excess(epsilon: float) -> float:
        first = float(log_ndtr(mu / 2 - epsilon / mu))
        ratio = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)) - first
        return first + math.log(max(-math.expm1(ratio), 1e-300)) - target

    if excess(0.0) <= 0:
        return 0.0
    # The Gaussian mechanism is mu^2/2-zCDP, which gives this upper bound (arXiv 1605.02065,
    # proposition 1.3).
    upper = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1e-9
    return float(brentq(excess, 0.0, upper, xtol=1e-12, rtol=1e-13))


def epsilon_subsampled(
    noise_multiplier: float, sample_rate: float, rounds: int, delta: float
) -> float:
    """Return an upper bound on epsilon of ``rounds`` Gaussian mechanisms on Poisson samples.

    See :func:`epsilon_sampled` for how. Raises PrivacyError if an argument is out of range.

    Parameters
    ----------
    noise_multiplier:
        Noise standard deviation over L2 sensitivity, positive.
    sample_rate:
        Probability with which each prompt is sampled in a round, in (0, 1]. Who is sampled must
        stay secret.
    rounds:
        Number of mechanisms, at least 0.
    delta:
        In (0, 1).

    Returns
    -------
    float
        Epsilon for adding or removing one prompt, 0 for no rounds.
    """
    _check(noise_multiplier, sample_rate, rounds, delta)
    if rounds == 0:
        return 0.0
    if sample_rate == 1:
        return epsilon_gaussian(noise_multiplier, rounds, delta)
    return epsilon_sampled(((noise_multiplier, sample_rate, rounds),), delta)


def compose(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Return an upper bound on epsilon of all these releases together, in any order.

    Adversary: whoever sees every one of them and may have chosen each after seeing those before it,
    as long as its noise multiplier and rate do not depend on private data (adaptive composition).

    Without sampling, Gaussian mechanisms of noise z_i are exactly one of noise (sum z_i^-2)^-1/2
    (Dong, Roth and Su 2022, arXiv 1905.02383, corollary 3.3), whose epsilon is exact
    (:func:`epsilon_gaussian`). With sampling anywhere, Opacus' accountants compose the lot, see
    :func:`epsilon_sampled`. Raises PrivacyError if ``delta`` is out of range.

    Parameters
    ----------
    mechanisms:
        Each release once, possibly none.
    delta:
        In (0, 1).

    Returns
    -------
    float
        Epsilon, 0 for no releases.
    """
    return compose_counted(Counter(mechanisms), delta)


def compose_counted(counted: Mapping[Mechanism, int], delta: float) -> float:
    """Compose releases as :func:`compose` does, given how often each kind was made."""
    if not counted:
        return 0.0
    if all(mechanism.sample_rate == 1 for mechanism in counted):
        precision = sum(times / m.noise_multiplier**2 for m, times in counted.items())
        return epsilon_gaussian(1 / math.sqrt(precision), 1, delta)
    history = ((m.noise_multiplier, m.sample_rate, times) for m, times in counted.items())
    return epsilon_sampled(tuple(sorted(history)), delta)


@lru_cache(maxsize=4096)
def epsilon_sampled(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Return an upper bound on epsilon of Gaussian mechanisms on Poisson samples.

    Opacus' PRV accountant (Gopi, Lee and Wutschitz 2021, arXiv 2106.02848), of whose interval the
    upper end is taken, of a narrower one where epsilon is small; its RDP accountant (arXiv
    1908.10530) where PRV fails, is not sound in float64, or is no tighter. Cached, since a run asks
    after every round: 0.05 to 0.3 s for a new question with 30 to 60 rounds, on one core.

    Parameters
    ----------
    history:
        ``(noise multiplier, sample rate, times)`` of each kind of release, times positive.
    delta:
        In (0, 1).

    Returns
    -------
    float
        Epsilon for adding or removing one prompt.
    """
    from opacus.accountants import PRVAccountant, RDPAccountant

    renyi, prv = RDPAccountant(), PRVAccountant()
    renyi.history, prv.history = list(history), list(history)
    with warnings.catch_warnings():
        # "Optimal order is the largest alpha": the bound holds for every order, that one could be
        # tighter.
        warnings.simplefilter("ignore")
        bound = float(renyi.get_epsilon(delta))
        if bound > _PRV_LARGEST_EPSILON or delta < _PRV_LEAST_DELTA:
            return bound
        try:
            tighter = float(prv.get_epsilon(delta, eps_error=_PRV_ERROR))
            if tighter < _PRV_SMALL:
                error = _PRV_SHARE * max(tighter, 2 * _PRV_ERROR)
                tighter = min(tighter, float(prv.get_epsilon(delta, eps_error=error)))
        except (ValueError, RuntimeError, ArithmeticError):
            return bound
    return max(0.0, min(bound, tighter)) if math.isfinite(tighter) else bound


def _check(noise_multiplier: float, sample_rate: float, rounds: int, delta: float) -> None:
    if not (
        0 < noise_multiplier < math.inf and 0 < sample_rate <= 1 and rounds >= 0 and 0 < delta < 1
    ):
        raise PrivacyError(
            f"no epsilon follows from noise multiplier = {noise_multiplier}, "
            f"sample rate = {sample_rate}, rounds = {rounds}, delta = {delta}",
            cure="use a positive noise, a rate in (0, 1], at least 0 rounds and a delta in (0, 1)",
        )
