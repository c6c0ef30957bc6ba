"""Differential privacy: clipping, noise, what a client releases, and what that costs.

Light to import: neither torch nor Opacus is loaded until an accountant needs it. The gradients
that are clipped here come from :mod:`fedgrpo.model.family.row_gradients`.
"""

from fedgrpo.privacy.accounting.budget import Cohort, budget_of, plan_budget
from fedgrpo.privacy.accounting.composition import (
    Mechanism,
    compose,
    epsilon_gaussian,
    epsilon_subsampled,
)
from fedgrpo.privacy.accounting.guarantees import (
    check_budget,
    guarantees,
    round_cost,
    worst_epsilon,
)
from fedgrpo.privacy.adaptive import count_noise, indicator_share, next_clipping_norm
from fedgrpo.privacy.clipping import clip
from fedgrpo.privacy.noise import add_noise, gaussian_noise
from fedgrpo.privacy.release import (
    ReleasePlan,
    client_noise_std,
    read_aggregate,
    release_prompts,
    release_update,
    server_noise_std,
)

__all__ = [
    "Cohort",
    "Mechanism",
    "ReleasePlan",
    "add_noise",
    "budget_of",
    "check_budget",
    "client_noise_std",
    "clip",
    "compose",
    "count_noise",
    "epsilon_gaussian",
    "epsilon_subsampled",
    "gaussian_noise",
    "guarantees",
    "indicator_share",
    "next_clipping_norm",
    "plan_budget",
    "read_aggregate",
    "release_prompts",
    "release_update",
    "round_cost",
    "server_noise_std",
    "worst_epsilon",
]
