"""What a run says about itself: one row a round, one summary at the end, one status while it lives.

Training alone is a run whose rounds are optimiser steps, and writes the same records. They hold
figures only, never a prompt, a completion or anything of a single node; :class:`SampleRow` is the
exception, of held-out prompts, in a file that its owner alone may read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedgrpo.ground.records import Guarantee, Record, Sample
from fedgrpo.settings.protocols import PROTOCOLS

State = Literal["waiting", "running", "finished", "failed", "interrupted"]

STEP = "step"
"""What training alone does between two evaluations."""
PHASES = (
    STEP,
    "train",
    *(phase.name for protocol in PROTOCOLS.values() for phase in protocol.phases),
    "aggregate",
    "evaluate",
)
"""Phases of a round in their order; the keys of :attr:`RoundRow.seconds`."""


NO_PRIVACY = "none: the adapter is as private as the prompts that it was trained on"
"""What training alone guarantees."""


@dataclass(frozen=True, kw_only=True)
class RoundRow(Record):
    """One line of ``metrics.jsonl``. None means: not measured in this round."""

    round: int
    """Number of the round, or of the optimiser step; 0 is the state before training."""
    applied: bool
    """Whether the round changed the model."""
    reason: str
    """Why it did not, else empty."""
    metrics: dict[str, float]
    """Figures about training by name; those that were not sent, or say nothing, are not there. In a
    federation means over the nodes' completions, as they left the masked sums:
    :data:`fedgrpo.settings.METRICS`. Else everything that a step measures, with what belongs to one
    reward function as ``rewards/NAME`` and ``reward_spreads/NAME``. Users' own are called
    ``metrics/NAME``.
    """
    clipping_norm: float | None
    """L2 norm C at which this round clipped one unit's contribution. None: training alone."""
    update_norm: float | None
    """L2 norm of the aggregated delta."""
    finished: int
    """Nodes whose update is in the result."""
    dropped: int
    """Nodes lost in this round, at any stage."""
    buckets: int
    """Vectors that the robust rule saw: bucket means, or as many as ``finished``, one a client."""
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
    held_out_rewards: dict[str, dict[str, float]] = field(default_factory=dict)
    """Held-out mean of each reward function by name, ``sampled`` and ``greedy``."""
    held_out_by: dict[str, dict[str, float]] = field(default_factory=dict)
    """Held-out accuracy of each task, or of each value of ``evaluation.by``: ``sampled`` and
    ``greedy``. Empty where nothing was measured, or there is nothing to tell apart by.
    """
    pass_at: dict[str, float] = field(default_factory=dict)
    """Share of held-out prompts that one of k completions solves, by k of ``evaluation.pass_at``:
    in the first row and the last.
    """
    bytes: dict[str, int] = field(default_factory=dict)
    """Payload of all messages of the round, in bytes: ``sent`` to nodes, ``received`` from them.
    After a kill those of the last attempt, which may need fewer.
    """
    warnings: list[str] = field(default_factory=list)
    """What kept a trainer from learning, with the cure; told once, after this step."""

    @property
    def alone(self) -> bool:
        """Whether no federation took this round: it is a step of training alone."""
        return self.clipping_norm is None


@dataclass(frozen=True, kw_only=True)
class SampleRow(Sample, Record):
    """One line of ``completions.jsonl``."""

    round: int


@dataclass(frozen=True)
class RewardSummary(Record):
    """Held-out accuracy before and after: sampled (``start``, ``end``) and greedy."""

    start: float
    end: float
    greedy_start: float
    greedy_end: float
    by: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same four, ``start`` to ``greedy_end``, of each value of ``evaluation.by``."""
    pass_at: dict[str, dict[str, float]] = field(default_factory=dict)
    """``start`` and ``end`` of each k of ``evaluation.pass_at``."""

    @classmethod
    def between(cls, first: RoundRow, last: RoundRow) -> RewardSummary:
        """What two measured rows tell; of values that both of them tell."""
        return cls(
            start=first.sampled or 0.0,
            end=last.sampled or 0.0,
            greedy_start=first.greedy or 0.0,
            greedy_end=last.greedy or 0.0,
            by={
                value: {
                    "start": begun["sampled"],
                    "end": last.held_out_by[value]["sampled"],
                    "greedy_start": begun["greedy"],
                    "greedy_end": last.held_out_by[value]["greedy"],
                }
                for value, begun in first.held_out_by.items()
                if value in last.held_out_by
            },
            pass_at={
                k: {"start": share, "end": last.pass_at[k]}
                for k, share in first.pass_at.items()
                if k in last.pass_at
            },
        )


@dataclass(frozen=True)
class RobustSummary(Record):
    """The robust rule, and what it did in the last round that counted.

    A group is a bucket, or a single client where there are none.
    """

    rule: str
    trim: int
    """Groups that it counted as possibly bad at either end; 0 for a rule that drops none."""
    buckets: int
    words: str
    """The rule's own, for reading: ``trimmed mean of 4 group means, each coordinate ...``, or ``of
    12 clients' updates``.
    """


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(Record):
    """What only training alone can tell."""

    best_step: int
    """Steps that the adapter in ``adapter-best`` has taken: the best by the sampled reward."""
    best: float
    """Its held-out reward, sampled."""
    best_greedy: float
    completions: int
    """Sampled for training."""
    tokens: int
    """Sampled for training."""
    tokens_per_second: float
    """Tokens over the wall time of all steps, updates included."""
    peak_memory_bytes: int
    """Largest resident memory of the process that finished."""
    peak_gpu_bytes: int | None
    """Largest memory that torch held on the GPU. None without one."""


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """``summary.json``: the outcome of a finished run."""

    reward: RewardSummary
    rounds: int
    """Rounds, or steps."""
    wall_s: float
    """Wall time of the run, in seconds; of training alone that of steps and evaluations."""
    overhead_share: float
    """Share of the wall time that is neither local training nor evaluation."""
    privacy: list[Guarantee]
    """Empty without differential privacy."""
    robust: RobustSummary | None
    """None: training alone."""
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
    training: TrainingSummary | None = None
    """None: a federation."""

    @property
    def unit(self) -> str:
        """What the run counts: ``round`` or ``step``."""
        return STEP if self.training else "round"

    @property
    def without_privacy(self) -> str:
        """What to say where :attr:`privacy` is empty."""
        return NO_PRIVACY if self.training else "no differential privacy"


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


@dataclass(frozen=True)
class DroppedNode(Record):
    """A line of ``dropped.jsonl``: a node that a round was closed without."""

    round: int
    node: str
    """Flower's id."""
    reason: str
    time: float
    """Unix time (seconds)."""


def best_evaluation(rows: Sequence[RoundRow]) -> RoundRow:
    """Return the measured row with the largest sampled reward, the earliest of equals.

    The sampled reward, not the greedy one, since it is what training raises and it moves less by
    chance; held-out, not in training, since a policy can learn its prompts by heart.
    """
    measured = [row for row in rows if row.sampled is not None]
    return max(measured, key=lambda row: row.sampled or 0.0)
