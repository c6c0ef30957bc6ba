"""From noise to (epsilon, delta): what a run guarantees, to whom, and whether it may spend that."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.ground.records import Guarantee
from fedgrpo.privacy.accounting.composition import Mechanism, epsilon_gaussian, epsilon_subsampled
from fedgrpo.privacy.accounting.overflow import OVERFLOW, with_overflow
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of

__all__ = [
    "OVERFLOW",
    "check_budget",
    "guarantees",
    "prompt_epsilon",
    "round_cost",
    "worst_epsilon",
]

_LARGEST_CURE = 10**6
"""Hundredths of a noise multiplier up to which a cure is sought."""


_TRUSTING = (
    "reader of the released models, all other clients among them; "
    "the server is trusted: it sees un-noised {sees}"
)


def guarantees(
    settings: Settings, rounds: int, smallest_bucket: int | None = None
) -> tuple[Guarantee, ...]:
    """State what ``rounds`` rounds cost, for each adversary, worst first.

    Prompt unit: one unit of a client's (:mod:`fedgrpo.data.units`) replaced by an empty one, which
    is the same as added or removed at an unchanged sampling rate. The rate is at most
    prompts_per_step / min_prompts: a client that declares more units samples each with a smaller
    probability, which only helps. What a limited time costs is in it, see
    :func:`fedgrpo.privacy.accounting.overflow.with_overflow`.

    Client unit: a client's contributions zeroed out in all rounds; who takes part is public, so
    sampling amplifies nothing.

    Client noise. Every client adds all the noise z itself, so even a server that breaks the
    protocol, with every peer, sees no less. A bucket's sum is unmasked only with at least t
    survivors (:func:`~fedgrpo.settings.protocols.buckets.secret_threshold`), so the server alone,
    all peers honest, faces t noises of variance z^2: z sqrt(t).

    Plain protocol with client noise: a group of one, so each client's own z and nothing else.

    Server noise protects against readers of the released models, which all other clients are: that
    they know their own contributions, or choose them badly, takes nothing from it (see
    :func:`fedgrpo.robust.sensitivity`; docs/privacy.md has the proof). It does not protect against
    the server, which must keep what it sees to itself and draw the noise. Raises PrivacyError if
    ``rounds`` is negative or ``smallest_bucket`` is below ``secure.bucket_size``.

    Parameters
    ----------
    rounds:
        Rounds spent, at least 0.
    smallest_bucket:
        Members of the smallest bucket formed so far, if known; at least ``secure.bucket_size``.

    Returns
    -------
    tuple[Guarantee, ...]
        Empty without differential privacy.
    """
    return tuple(
        Guarantee(
            unit=settings.privacy.unit,
            adversary=adversary,
            epsilon=_epsilon(settings, noise, rounds),
            delta=settings.privacy.delta,
        )
        for adversary, noise in _adversaries(settings, smallest_bucket)
    )


def worst_epsilon(settings: Settings, rounds: int) -> float | None:
    """Return epsilon of that many rounds for the adversary that ``privacy.max_epsilon`` means.

    That is the strongest one, but over a committee everybody except its members, of whom one
    curious member's larger figure is stated beside it. None without a unit.
    """
    adversaries = _adversaries(settings, None)
    return _epsilon(settings, adversaries[0][1], rounds) if adversaries else None


def round_cost(settings: Settings) -> Mechanism | None:
    """Return one round as the strongest adversary sees it; None without a unit.

    Over a committee that is one curious member. Its ``compose`` over T rounds is the largest of
    :func:`guarantees`, and it can be added up with rounds of other runs.
    """
    adversaries = _adversaries(settings, None)
    if not adversaries:
        return None
    return Mechanism(min(noise for _, noise in adversaries), _sample_rate(settings))


def check_budget(settings: Settings) -> None:
    """Refuse a run that would spend more than ``privacy.max_epsilon`` by its last round.

    Raises
    ------
    PrivacyError
        Names epsilon, the limit, and the least noise multiplier (in hundredths) and most rounds
        that would do.
    """
    limit, epsilon = settings.privacy.max_epsilon, worst_epsilon(settings, settings.rounds)
    if epsilon is None or epsilon <= limit:
        return
    cures = ["raise privacy.delta"]
    if math.isfinite(epsilon):
        cures = [f"raise privacy.max_epsilon to {math.ceil(100 * epsilon) / 100:.2f}"]
    if rounds := _most_rounds(settings):
        cures.insert(0, f"set rounds <= {rounds}")
    if noise := _least_noise(settings):
        cures.insert(0, f"set privacy.noise_multiplier >= {noise:.2f}")
    raise PrivacyError(
        f"{settings.rounds} rounds at privacy.noise_multiplier = "
        f"{settings.privacy.noise_multiplier} would spend epsilon = {epsilon:.2f} at delta = "
        f"{settings.privacy.delta:g}, more than privacy.max_epsilon = {limit}",
        cure=", or ".join(cures),
    )


def _adversaries(settings: Settings, smallest_bucket: int | None) -> list[tuple[str, float]]:
    """Adversaries with the noise multiplier that each faces, the one of max_epsilon first."""
    privacy, protocol = settings.privacy, protocol_of(settings)
    least = protocol.group_size(settings)
    size = least if smallest_bucket is None else smallest_bucket
    if size < least:
        raise PrivacyError(
            f"a bucket of {size} is smaller than secure.bucket_size = {least}",
            cure="never sum fewer clients than secure.bucket_size",
        )
    if privacy.unit == "none":
        return []
    if protocol.noise_place(settings) == "server":
        return [(_TRUSTING.format(sees=protocol.sees), privacy.noise_multiplier)]
    return protocol.adversaries(settings, size)


def _epsilon(settings: Settings, noise_multiplier: float, rounds: int) -> float:
    if settings.privacy.unit == "client":
        return epsilon_gaussian(noise_multiplier, rounds, settings.privacy.delta)
    rate = _sample_rate(settings)
    return prompt_epsilon(noise_multiplier, rate, rounds, settings.privacy.delta)


def prompt_epsilon(noise_multiplier: float, sample_rate: float, rounds: int, delta: float) -> float:
    """Return epsilon of one unit in ``rounds`` releases of limited time, in at most one client.

    Parameters
    ----------
    noise_multiplier, sample_rate, rounds, delta:
        As for :func:`fedgrpo.privacy.accounting.composition.epsilon_subsampled`.
    """
    return with_overflow(
        lambda left: epsilon_subsampled(noise_multiplier, sample_rate, rounds, left), rounds, delta
    )


def _sample_rate(settings: Settings) -> float:
    """Largest probability with which a unit is in a round: a client always is."""
    if settings.privacy.unit == "client":
        return 1.0
    return settings.grpo.prompts_per_step / settings.data.min_prompts


def _affordable(settings: Settings, hundredths: int) -> bool:
    """Whether the run stays within its budget at that many hundredths of a noise multiplier."""
    privacy = settings.privacy.model_copy(update={"noise_multiplier": hundredths / 100})
    epsilon = worst_epsilon(settings.model_copy(update={"privacy": privacy}), settings.rounds)
    return epsilon is None or epsilon <= privacy.max_epsilon


def _least_noise(settings: Settings) -> float | None:
    """Least sufficient noise multiplier in hundredths, or None if none is in reach."""
    low = high = max(1, math.floor(100 * settings.privacy.noise_multiplier))
    while not _affordable(settings, high):
        low, high = high, 2 * high
        if high > _LARGEST_CURE:
            return None
    return (low + bisect_left(range(low, high), True, key=lambda h: _affordable(settings, h))) / 100


def _most_rounds(settings: Settings) -> int:
    """Most rounds that the budget pays for, possibly 0."""
    return bisect_right(
        range(1, settings.rounds),
        settings.privacy.max_epsilon,
        key=lambda rounds: worst_epsilon(settings, rounds) or 0.0,
    )
