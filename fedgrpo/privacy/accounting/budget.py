"""Planning a run's budget: from any two of noise, rounds and epsilon to the third, and whether a
cohort learns at that noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy.accounting.composition import Mechanism, epsilon_gaussian
from fedgrpo.privacy.accounting.guarantees import prompt_epsilon, round_cost
from fedgrpo.privacy.accounting.neighbours import Neighbours, epsilon_of_replacement, neighbours_of
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.settings.protocols.base import trimmed_by

LEARNS = 1.5
"""Noise-to-signal ratio R up to which a run learns: in a toy quadratic, 20 rounds at R = 1.5 left
about 30 % of the error, at R = 0.75 about 15 %."""

HOPELESS = 3.0
"""R beyond which nothing was learnt there."""

_MOST_ROUNDS = 10**6
_MOST_NOISE = 1e6
_EXACT, _SAMPLED = 1e-12, 1e-4
"""Relative precision of a noise multiplier, without sampling and with it (0.1 s a trial)."""


@dataclass(frozen=True)
class Budget:
    """Noise, rounds and epsilon that belong together.

    Attributes
    ----------
    unit:
        Whose presence is hidden.
    noise_multiplier:
        Noise standard deviation over L2 sensitivity.
    rounds:
        Releases.
    epsilon, delta:
        What they cost together.
    sample_rate:
        Probability with which a unit is in a round; 1 for clients.
    """

    unit: Literal["prompt", "client"]
    noise_multiplier: float
    rounds: int
    epsilon: float
    delta: float
    sample_rate: float = 1.0


@dataclass(frozen=True)
class Cohort:
    """Who takes part in a round, as far as noise and signal depend on it. All of it is public.

    Attributes
    ----------
    clients:
        n, fixed before inputs are known.
    trim:
        k: values dropped at either end of a coordinate.
    bucket_size:
        Clients behind each of those values, s; 1 where single updates are trimmed.
    prompts:
        Expected prompts of a client in a round, B, where the unit is a prompt; else 1.
    after_trimming:
        Whether noise is added once, after trimming, or by each client before it.

    Raises
    ------
    PrivacyError
        If trimming leaves nobody, or a number is out of range.
    """

    clients: int
    trim: int = 0
    bucket_size: int = 1
    prompts: int = 1
    after_trimming: bool = True

    def __post_init__(self) -> None:
        counts = (self.trim >= 0, self.bucket_size >= 1, self.prompts >= 1)
        if not all(counts) or self.kept < 1:
            raise PrivacyError(
                f"of {self.clients} clients, trimming {self.trim} x {self.bucket_size} at either "
                "end leaves nobody",
                cure="raise the cohort, or lower trim or bucket size",
            )

    @classmethod
    def of(cls, settings: Settings) -> Cohort:
        """The least cohort that these settings accept."""
        clients = settings.federation.min_clients
        return cls(
            clients=clients,
            trim=trimmed_by(settings),
            bucket_size=protocol_of(settings).summed(settings, clients),
            prompts=settings.grpo.prompts_per_step if settings.privacy.unit == "prompt" else 1,
            after_trimming=settings.privacy.noise != "client",
        )

    @property
    def kept(self) -> int:
        """Clients in the middle, n - 2ks."""
        return self.clients - 2 * self.trim * self.bucket_size

    def noise_to_signal(self, noise_multiplier: float, dimension: int) -> float:
        """R: L2 norm of a round's noise over the clipping norm, the most that a signal can have.

        After trimming, the mean of the kept has sensitivity C / (n-2ks), so R = z sqrt(d) / (B
        (n-2ks)). Before it, each of them carries noise z, and their mean R = z sqrt(d) / (B
        sqrt(n-2ks)); attackers hide in that noise on top.
        """
        return noise_multiplier * math.sqrt(dimension) / self._averaging

    def learnable_dimension(self, noise_multiplier: float) -> int:
        """Most trainable values for which R stays within :data:`LEARNS`; possibly 0."""
        return math.floor((LEARNS * self._averaging / noise_multiplier) ** 2 * (1 + 1e-12))

    def warning(self, noise_multiplier: float, dimension: int) -> str:
        """Say that nothing can be learnt, and with what it could; empty if it can."""
        ratio = self.noise_to_signal(noise_multiplier, dimension)
        if ratio <= HOPELESS:
            return ""
        able = self.learnable_dimension(noise_multiplier)
        cure = (
            f"train at most {able} values (adapter.kind = 'tiny_lora' with a small "
            "adapter.projection_dim, or fewer adapter.target_modules)"
            if able
            else "no dimension is small enough: take more clients, or a larger epsilon"
        )
        return (
            f"noise drowns the signal: {dimension} trainable values at noise multiplier "
            f"{noise_multiplier:.4g} give R = {ratio:.1f}, and runs learn up to about {LEARNS}; "
            f"{cure}"
        )

    @property
    def _averaging(self) -> float:
        """What divides the noise of one sensitivity."""
        if self.after_trimming:
            return float(self.prompts * self.kept)
        return self.prompts * math.sqrt(self.kept)


def plan_budget(
    unit: Literal["prompt", "client"],
    delta: float,
    *,
    noise_multiplier: float | None = None,
    rounds: int | None = None,
    epsilon: float | None = None,
    sample_rate: float = 1.0,
) -> Budget:
    """Find the third of noise, rounds and epsilon from the two that are given.

    For clients the figures are those of the closed form
    (:func:`~fedgrpo.privacy.accounting.composition.epsilon_gaussian`); for prompts, of
    :func:`~fedgrpo.privacy.accounting.guarantees.prompt_epsilon`. A noise multiplier is rounded up
    and rounds are rounded down, so what is found never costs more than ``epsilon``.

    Parameters
    ----------
    unit:
        Whose presence is hidden. Clients are not sampled in secret, so theirs has rate 1.
    delta:
        In (0, 1).
    noise_multiplier, rounds, epsilon:
        Two of them.
    sample_rate:
        Expected prompts a round over a client's prompts.

    Raises
    ------
    PrivacyError
        If not just two are given, one is out of range, or nothing in reach fits.
    """
    if unit == "client" and sample_rate != 1:
        raise PrivacyError(
            f"sample rate = {sample_rate} cannot go with unit 'client': who takes part is public, "
            "so nothing is amplified",
            cure="leave the rate out, or plan for unit 'prompt'",
        )

    def cost(noise: float, times: int) -> float:
        if unit == "client":
            return epsilon_gaussian(noise, times, delta)
        return prompt_epsilon(noise, sample_rate, times, delta)

    match noise_multiplier, rounds, epsilon:
        case float() | int(), int(), None:
            found = noise_multiplier, rounds, cost(noise_multiplier, rounds)
        case None, int(), float() | int() if epsilon > 0:
            precision = _EXACT if sample_rate == 1 else _SAMPLED
            noise = _least_noise(lambda z: cost(z, rounds) <= epsilon, precision)
            found = noise, rounds, cost(noise, rounds)
        case float() | int(), None, float() | int() if epsilon > 0:
            most = _most_rounds(lambda times: cost(noise_multiplier, times) <= epsilon)
            found = noise_multiplier, most, cost(noise_multiplier, most)
        case _:
            raise PrivacyError(
                f"no budget follows from noise multiplier = {noise_multiplier}, rounds = {rounds}, "
                f"epsilon = {epsilon}",
                cure="give just two of the three, epsilon above 0",
            )
    return Budget(unit, *found, delta, sample_rate)


def budget_of(settings: Settings, epsilon: float | None = None) -> Budget | None:
    """Plan a run from its settings; None without a privacy unit.

    For the adversary of ``privacy.max_epsilon``, see
    :func:`fedgrpo.privacy.accounting.guarantees.worst_epsilon`.

    Parameters
    ----------
    settings:
        The run's.
    epsilon:
        A target: then the noise multiplier of the settings gives way.
    """
    privacy, cost = settings.privacy, round_cost(settings)
    if cost is None or privacy.unit == "none":
        return None
    return plan_budget(
        privacy.unit,
        privacy.delta,
        noise_multiplier=privacy.noise_multiplier if epsilon is None else None,
        rounds=settings.rounds,
        epsilon=epsilon,
        sample_rate=cost.sample_rate,
    )


def neighbours_of_budget(budget: Budget, *, shared: bool) -> Neighbours:
    """Work out what else a budget costs: for copies of a prompt, and for replaced units.

    Parameters
    ----------
    budget:
        As planned.
    shared:
        Whether one noise covers all copies, see
        :func:`fedgrpo.privacy.accounting.neighbours.epsilon_of_copies`. Clients have none.
    """
    counted = {Mechanism(budget.noise_multiplier, budget.sample_rate): budget.rounds}
    if budget.unit == "client":
        return Neighbours(epsilon_of_replacement(counted, budget.delta), {})
    return neighbours_of(counted, budget.delta, shared=shared, limited=budget.rounds)


def _least_noise(enough: Callable[[float], bool], precision: float) -> float:
    """Least noise multiplier that is enough, to a relative precision, from above."""
    low, high = 0.01, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            raise PrivacyError(
                f"no noise multiplier up to {_MOST_NOISE:g} reaches that epsilon",
                cure="aim for a larger epsilon or delta, or fewer rounds",
            )
    while high - low > precision * high:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _most_rounds(affordable: Callable[[int], bool]) -> int:
    """Most rounds that are affordable, possibly 0."""
    low, high = 0, 1
    while affordable(high):
        low, high = high, 2 * high
        if high > _MOST_ROUNDS:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if affordable(middle) else (low, middle)
    return low
