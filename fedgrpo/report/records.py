"""What a run says about itself: one row a round, one summary at the end, one status while it lives.

The records hold figures only, never a prompt, a completion or anything of a single node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedgrpo.ground.records import Guarantee, Record
from fedgrpo.settings.protocols import PROTOCOLS

State = Literal["waiting", "running", "finished", "failed", "interrupted"]

PHASES = (
    "train",
    *(phase.name for protocol in PROTOCOLS.values() for phase in protocol.phases),
    "aggregate",
    "evaluate",
)
"""Phases of a round in their order; the keys of :attr:`RoundRow.seconds`."""


@dataclass(frozen=True, kw_only=True)
class RoundRow(Record):
    """One line of ``metrics.jsonl``. None means: not measured in this round."""

    round: int
    """Round number; 0 is the state before training."""
    applied: bool
    """Whether the round changed the model."""
    reason: str
    """Why it did not, else empty."""
    metrics: dict[str, float]
    """Means over the nodes' completions by name, as they left the masked sums; see
    :data:`fedgrpo.settings.METRICS`. Those that were not sent, or say nothing, are not there.
    """
    clipping_norm: float
    """L2 norm C at which this round clipped one unit's contribution."""
    update_norm: float | None
    """L2 norm of the aggregated delta."""
    finished: int
    """Nodes whose update is in the result."""
    dropped: int
    """Nodes lost in this round, at any stage."""
    buckets: int
    """Bucket means that the robust rule saw."""
    epsilon: float | None
    """Privacy spent so far against the adversary of ``privacy.max_epsilon``: the worst one, or
    everybody but the committee. None: no differential privacy.
    """
    seconds: dict[str, float]
    """Wall time of each phase in :data:`PHASES`, in seconds."""
    sampled: float | None
    """Held-out accuracy of completions sampled at the training temperature."""
    greedy: float | None
    """Held-out accuracy of the most likely completions."""
    kl_base: float | None
    """KL divergence (nats) of the global adapter from the start."""
    members: int | None
    """Committee members that computed the result: 4, or 3 after one was lost."""


@dataclass(frozen=True)
class RewardSummary(Record):
    """Held-out accuracy before and after: sampled (``start``, ``end``) and greedy."""

    start: float
    end: float
    greedy_start: float
    greedy_end: float


@dataclass(frozen=True)
class RobustSummary(Record):
    """The robust rule, and what it did in the last round that counted.

    A group is a bucket, or a single client where there are none.
    """

    rule: str
    trim: int
    """Group means that it counted as possibly bad at either end; 0 for a rule that drops none."""
    buckets: int
    words: str
    """The rule's own, for reading: ``trimmed mean of 4 group means, each coordinate ...``."""


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """``summary.json``: the outcome of a finished run."""

    reward: RewardSummary
    rounds: int
    wall_s: float
    """Wall time of the run, in seconds."""
    overhead_share: float
    """Share of the wall time that is neither local training nor evaluation."""
    privacy: list[Guarantee]
    """Empty without differential privacy."""
    robust: RobustSummary
    dropped: int
    """Nodes lost, summed over rounds."""
    skipped_rounds: int
    """Rounds that left the model as it was."""
    adapter: str
    """Final adapter, as a path relative to the run directory."""
    settings: str
    """Fingerprint of the settings, SHA-256 in hex."""
    version: str
    """Version of fedgrpo that ran."""


@dataclass(frozen=True, kw_only=True)
class Status(Record):
    """``status.json``: where a run is now."""

    state: State
    round: int
    rounds: int
    phase: str
    """``waiting``, one of :data:`PHASES`, or empty before the first."""
    detail: str
    since: float
    """Unix time (seconds) at which this phase of this round began."""
    time: float
    """Unix time (seconds) of this entry."""
    problem: str
    """What went wrong, for the states failed and interrupted."""
    cure: str
