"""Why a site refuses, as codes that travel: what each means, and what the operator can do."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """Code of a refusal. It is all that a refusing site sends: figures stay in its own log."""

    POLICY_FILE = "policy-file"
    UNIT = "unit"
    NOISE = "noise"
    NOISE_PLACE = "noise-place"
    HONEST_MATES = "honest-mates"
    CLIPPING_NORM = "clipping-norm"
    BUCKET_SIZE = "bucket-size"
    PROTOCOL = "protocol"
    COMMITTEE = "committee"
    MODEL = "model"
    REWARD = "reward"
    METRICS = "metrics"
    HOURS = "hours"
    ROUNDS = "rounds"
    EPSILON = "epsilon"
    SPENT_FILE = "spent-file"


CURES = {
    Refusal.POLICY_FILE: "the site's policy file cannot be read: ask the site to mend it",
    Refusal.UNIT: "set privacy.unit to one that the site allows",
    Refusal.NOISE: "raise privacy.noise_multiplier",
    Refusal.NOISE_PLACE: "let those add the noise whom the site trusts with it: privacy.noise = "
    "'client', or the members of aggregation.protocol = 'committee'",
    Refusal.HONEST_MATES: "lower privacy.honest_mates",
    Refusal.CLIPPING_NORM: "lower privacy.clipping_norm",
    Refusal.BUCKET_SIZE: "raise secure.bucket_size",
    Refusal.PROTOCOL: "use a protocol that the site allows",
    Refusal.COMMITTEE: "name members in aggregation.committee to all of whom the site agrees",
    Refusal.MODEL: "train a model (and revision) that the site has approved",
    Refusal.REWARD: "use reward functions that the site has approved",
    Refusal.METRICS: "shorten privacy.metrics, or have them noised before the server sees them "
    "(privacy.noise = 'client', or a committee)",
    Refusal.HOURS: "run within the site's hours",
    Refusal.ROUNDS: "the site has answered all rounds that it allows: ask it for more",
    Refusal.EPSILON: "the site's privacy budget is spent: go on without it, or agree on another",
    Refusal.SPENT_FILE: "the site cannot keep its account: ask it to look at its own log",
}
"""What the operator can do about each."""
