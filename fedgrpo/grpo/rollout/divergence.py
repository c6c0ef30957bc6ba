"""Per-token estimates of the KL divergence from a reference, with the right gradient.

Source: J. Schulman, "Approximating KL divergence" (2020); k3 is that of GRPO, arXiv 2402.03300.
"""

from __future__ import annotations

from torch import Tensor

from fedgrpo.ground.errors import SettingsError

LOG_RATIO_LIMIT = 20.0
"""|log ratio| is clamped here before exp, so that one token cannot overflow a step."""


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Log ratio, policy - reference: unbiased, of either sign."""
    return (logps - ref_logps).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Half the squared log ratio: biased in value, low variance."""
    return k1(logps, ref_logps).square() / 2


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = reference - policy: unbiased and non-negative."""
    difference = -k1(logps, ref_logps)
    return difference.exp() - difference - 1


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def kl_penalty(
    name: str, logps: Tensor, ref_logps: Tensor, ratio: Tensor, *, corrected: bool = True
) -> Tensor:
    """Penalty whose gradient, over tokens that the sampler drew, is that of KL(policy ||
    reference); raises SettingsError if there is no such estimator.

    Parameters
    ----------
    name:
        ``k1``, ``k2`` or ``k3``.
    logps, ref_logps, ratio:
        Shape (batch, tokens); ``ratio`` is policy over sampler, with its gradient.
    corrected:
        False takes the bare estimate, whose gradient is wrong: zero in expectation for k1, that of
        the reverse divergence for k3, and blind to the sampler's age for all.
    """
    if name not in ESTIMATORS:
        raise SettingsError(
            f"grpo.kl = {name!r} is unknown", cure=f"choose from {', '.join(ESTIMATORS)}"
        )
    estimate = ESTIMATORS[name](logps, ref_logps)
    if not corrected:
        return estimate
    # With u = grad log policy and E over the sampler, grad KL = E[ratio u k1]. The ratio's own
    # gradient adds ratio u k: right for k1 (what is left over, E[ratio u], is zero) and, token by
    # token, for k3 (whose own is u (k1 - k3)). That of k2 is u k1 already, so its ratio is held.
    return estimate * (ratio.detach() if name == "k2" else ratio)
