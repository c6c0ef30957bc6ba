"""Differential privacy: clipping, noise, what a holder releases, and what that costs.

Light to import: neither torch nor Opacus is loaded until an accountant needs it. Per-prompt
gradients, which do need torch, are imported from :mod:`fedgrpo.privacy.prompt_gradients` directly.
"""

from fedgrpo.privacy.accounting import (
    check_budget,
    epsilon_gaussian,
    epsilon_subsampled,
    guarantees,
    worst_epsilon,
)
from fedgrpo.privacy.adaptive import count_noise, indicator_share, next_clipping_norm
from fedgrpo.privacy.clipping import ClipResult, clip
from fedgrpo.privacy.noise import add_noise, gaussian_noise
from fedgrpo.privacy.release import (
    METRICS,
    Aggregate,
    ReleasePlan,
    holder_noise_std,
    read_aggregate,
    release_prompts,
    release_update,
    server_noise_std,
)

__all__ = [
    "METRICS",
    "Aggregate",
    "ClipResult",
    "ReleasePlan",
    "add_noise",
    "check_budget",
    "clip",
    "count_noise",
    "epsilon_gaussian",
    "epsilon_subsampled",
    "gaussian_noise",
    "guarantees",
    "holder_noise_std",
    "indicator_share",
    "next_clipping_norm",
    "read_aggregate",
    "release_prompts",
    "release_update",
    "server_noise_std",
    "worst_epsilon",
]
