"""An empirical lower bound on epsilon from one run: what an attacker really finds out.

Canaries are planted by independent fair coins, the run happens once, and an attacker guesses from
its output which of them were there (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846). More right
guesses than (epsilon, delta) allows would refute the stated epsilon, so a bound above it means that
noise, clipping or accounting is broken. A bound below it proves nothing: attacks may be weak.

The canaries here take the release's own path, with everything but a model: sampling coins,
clipping, scaling, noise, robust rule. They are the worst that a unit can be (each of full length in
a direction of its own), among colluders who see to it that the rule keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from fedgrpo.errors import PrivacyError
from fedgrpo.privacy.grid import grid_sum
from fedgrpo.privacy.noise import add_noise
from fedgrpo.privacy.release import (
    METRICS,
    ReleasePlan,
    holder_noise_std,
    read_aggregate,
    release_prompts,
    release_update,
    server_noise_std,
)
from fedgrpo.robust.rules import combine, sensitivity
from fedgrpo.settings import Settings

Floats = NDArray[np.float64]

Mechanism = Callable[[NDArray[np.bool_]], Floats]
"""``included (m,) -> score of each canary (m,)``: a run, and what an attacker makes of it."""

_LENGTH = 3.0
"""Canaries' norm over C: they are clipped like everything else."""


@dataclass(frozen=True)
class Audit:
    """What came of one run.

    Attributes
    ----------
    canaries, guesses, correct:
        How many were planted or not, guessed about, and guessed rightly.
    epsilon:
        Lower bound on epsilon at the delta that was asked about.
    """

    canaries: int
    guesses: int
    correct: int
    epsilon: float


def audit(
    mechanism: Mechanism,
    canaries: int,
    guesses: int,
    *,
    delta: float,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> Audit:
    """Plant canaries, run once, and bound epsilon from below.

    The attacker takes the ``guesses`` / 2 highest scores for planted and as many lowest for not
    planted, and says nothing about those between.

    Parameters
    ----------
    mechanism:
        The run under audit.
    canaries:
        m, at least ``guesses``.
    guesses:
        r, fixed before the run; even.
    delta:
        Of the statement that is tried, in [0, 1).
    rng:
        Of the planting coins. They are the experiment's, no secret of anybody.
    confidence:
        Probability, over coins and mechanism, with which the bound is a true one.

    Raises
    ------
    PrivacyError
        If the numbers do not fit, or the mechanism gives another number of scores.
    """
    included = rng.integers(2, size=canaries).astype(np.bool_)
    scores = mechanism(included)
    if scores.shape != (canaries,) or not 2 <= guesses <= canaries or guesses % 2:
        raise PrivacyError(
            f"{guesses} guesses about {canaries} canaries from scores of shape {scores.shape}",
            cure="score each canary, and make an even number of guesses about some of them",
        )
    order = np.argsort(scores)
    lowest, highest = order[: guesses // 2], order[-(guesses // 2) :]
    correct = int(included[highest].sum() + (~included[lowest]).sum())
    bound = epsilon_lower_bound(canaries, guesses, correct, delta=delta, confidence=confidence)
    return Audit(canaries, guesses, correct, bound)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest epsilon that so many right guesses refute (arXiv 2305.08846, section 5).

    Parameters
    ----------
    canaries, guesses, correct:
        m >= r >= v >= 0.
    delta:
        In [0, 1).
    confidence:
        In (0, 1).

    Returns
    -------
    float
        0 where nothing is refuted.
    """
    level = 1 - confidence
    if _p_value(canaries, guesses, correct, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, 1.0
    while _p_value(canaries, guesses, correct, high, delta) < level:
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        refuted = _p_value(canaries, guesses, correct, middle, delta) < level
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Largest probability of so many right guesses under (epsilon, delta): theorem 5.2.

    Pure epsilon: right guesses are dominated by coins of bias e^eps / (1 + e^eps), P[Binomial >=
    v]. Delta adds at most 2 m delta max_i P[v > Binomial >= v - i] / i.
    """
    bias = 1 / (1 + math.exp(-epsilon))
    beyond = float(binom.sf(correct - 1, guesses, bias))
    steps = np.arange(1, correct + 1)
    just_below = np.cumsum(binom.pmf(correct - steps, guesses, bias))
    worst = float((just_below / steps).max(initial=0.0))
    return min(1.0, beyond + 2 * canaries * delta * worst)


def prompt_canaries(settings: Settings) -> Mechanism:
    """Make a run at prompt level whose canaries are prompts of one holder.

    The holder has ``data.min_prompts`` prompts, the first m of which are canaries or, where they
    are not planted, empty. Adversary: whoever sees what the guarantee is stated for: with client
    noise the holder's own releases, with server noise the released aggregates, and ``robust.trim``
    colluders who send values above all others, so that the rule drops theirs and keeps the
    holder's.
    """

    def run(included: NDArray[np.bool_]) -> Floats:
        from fedgrpo.privacy.prompt_gradients import poisson_sample

        count = max(settings.data.min_prompts, included.size)
        plan = _plan(settings, included.size)
        scores = np.zeros(included.size)
        for _ in range(settings.rounds):
            chosen = np.array(poisson_sample(count, plan.expected_prompts), dtype=np.intp)
            planted = chosen[chosen < included.size]
            planted = planted[included[planted]]
            directions = np.zeros((planted.size, included.size))
            directions[np.arange(planted.size), planted] = _LENGTH * plan.clipping_norm
            metrics = np.full((planted.size, len(METRICS)), 0.5)
            total = grid_sum(directions, metrics, plan.clipping_norm)
            scores += _seen(settings, plan, release_prompts(total, plan)[None])
        return scores

    return run


def client_canaries(settings: Settings) -> Mechanism:
    """Make a run at client level whose canaries are holders, present or set to zero.

    Adversary: as in :func:`prompt_canaries`.
    """

    def run(included: NDArray[np.bool_]) -> Floats:
        plan = _plan(settings, included.size)
        updates = _LENGTH * plan.clipping_norm * np.diag(included.astype(np.float64))
        neutral = np.full(len(METRICS), 0.5)
        scores = np.zeros(included.size)
        for _ in range(settings.rounds):
            vectors = np.array([release_update(update, neutral, plan) for update in updates])
            scores += _seen(settings, plan, vectors)
        return scores

    return run


def _plan(settings: Settings, dimension: int) -> ReleasePlan:
    privacy = settings.privacy
    return ReleasePlan(
        privacy.unit,
        dimension,
        privacy.clipping_norm,
        settings.grpo.prompts_per_step,
        holder_noise_std(privacy),
        privacy.metrics_share,
    )


def _seen(settings: Settings, plan: ReleasePlan, vectors: Floats) -> Floats:
    """Score every canary by its own coordinate of what the adversary sees; shape (d,).

    ``vectors``, shape (h, size), are the releases of the holders who have canaries.
    """
    privacy, trim = settings.privacy, settings.robust.trim
    if privacy.noise == "client":
        # A holder's own release, before it is summed with any other.
        own = [read_aggregate(vector, plan).delta for vector in vectors]
        return own[0] if plan.unit == "prompt" else np.diag(np.array(own)).copy()
    bystanders = max(0, settings.federation.min_holders - trim - len(vectors))
    colluders = np.full((trim, plan.size), plan.bound)
    everybody = np.vstack([vectors, np.zeros((bystanders, plan.size)), colluders])
    rule = settings.robust.rule
    combined = combine(rule, everybody, trim)
    per_holder = sensitivity(rule, len(everybody), trim, 1)
    noise = server_noise_std(privacy, per_holder, plan.expected_prompts)
    return read_aggregate(add_noise(combined, noise), plan).delta
