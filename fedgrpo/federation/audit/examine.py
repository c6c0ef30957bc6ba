"""An audit of the whole path from a node's key to the released model.

Three runs of canaries: one to which nobody contributes, so that only noise is left; one with hardly
any noise, so that coins and clipping are in plain sight; and one from which an attacker guesses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedgrpo.federation.audit.canaries import canary_run, claimed_noise, claimed_rate
from fedgrpo.privacy.accounting.guarantees import worst_epsilon
from fedgrpo.privacy.audit import Audit, audit
from fedgrpo.privacy.inspection import noise_faults, sampling_faults
from fedgrpo.settings import Settings
from fedgrpo.settings.bounds import BOUNDS

SEEN = 0.05
"""Noise multiplier at which each canary is seen: 20 standard deviations."""


@dataclass(frozen=True)
class Examination:
    """What came of it."""

    stated: float
    """Epsilon that the accountant states."""
    guessed: Audit | None
    """The attacker's run, with the lower bound on epsilon that it proves; None if faults were found
    without it."""
    faults: tuple[str, ...]
    """What is not as it is claimed, one sentence each."""

    @property
    def sound(self) -> bool:
        """Whether nothing speaks against the stated epsilon."""
        return self.guessed is not None and self.guessed.epsilon <= self.stated


def examine(
    settings: Settings, *, guesses: int, rng: np.random.Generator, confidence: float = 0.95
) -> Examination:
    """Audit a run of these settings; see :func:`fedgrpo.federation.audit.canaries.canary_run`.

    Parameters
    ----------
    settings:
        As for a run of canaries, with at least two rounds.
    guesses:
        See :func:`fedgrpo.privacy.audit.audit`.
    rng:
        Of the planting coins.
    confidence:
        Of the lower bound on epsilon.
    """
    canaries = _canaries(settings)
    stated = worst_epsilon(settings, settings.rounds) or 0.0
    if found := [*_noise_faults(settings, canaries), *_sampling_faults(settings, canaries)]:
        # What can be seen directly need not be guessed.
        return Examination(stated, None, tuple(found))
    guessed = audit(
        lambda planted: canary_run(settings, planted).sum(axis=0),
        canaries,
        guesses,
        delta=settings.privacy.delta,
        rng=rng,
        confidence=confidence,
    )
    return Examination(stated, guessed, ())


def _noise_faults(settings: Settings, canaries: int) -> list[str]:
    """What is wrong with a run to which nobody contributes, no figures of sampled prompts either:
    in each round the same sum is released, and only randomness of its own tells rounds apart.
    """
    silent = _with_privacy(settings, metrics=())
    noise = canary_run(silent, np.zeros(canaries, np.bool_))
    return noise_faults(noise, claimed_noise(silent))


def _sampling_faults(settings: Settings, canaries: int) -> list[str]:
    """What is wrong with a run of all canaries that noise hardly hides."""
    clear = _with_privacy(
        settings, noise_multiplier=SEEN, max_epsilon=BOUNDS["privacy.max_epsilon"][1]
    )
    sizes = canary_run(clear, np.ones(canaries, np.bool_))
    return sampling_faults(sizes, claimed_noise(clear), claimed_rate(clear))


def _canaries(settings: Settings) -> int:
    if settings.privacy.unit == "prompt":
        return settings.data.min_prompts
    colluders = settings.robust.trim if settings.robust.rule == "trimmed_mean" else 0
    return settings.federation.min_clients - colluders


def _with_privacy(settings: Settings, **changed: object) -> Settings:
    privacy = settings.privacy.model_copy(update=changed)
    return settings.model_copy(update={"privacy": privacy})
