"""What a run says about itself: one row a round, one summary at the end, one status while it lives.

The records hold figures only, never a prompt, a completion or anything of a single node.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fedgrpo.ground.errors import RunError
from fedgrpo.settings.protocols import PROTOCOLS

State = Literal["waiting", "running", "finished", "failed", "interrupted"]

PHASES = (
    "train",
    *(phase.name for protocol in PROTOCOLS.values() for phase in protocol.phases),
    "aggregate",
    "evaluate",
)
"""Phases of a round in their order; the keys of :attr:`RoundRow.seconds`."""


class Record:
    """Base of all records: strict types, no unknown keys, and floats that JSON can carry."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False
    )


@dataclass(frozen=True, kw_only=True)
class RoundRow(Record):
    """One line of ``metrics.jsonl``. None means: not measured in this round."""

    round: int
    """Round number; 0 is the state before training."""
    applied: bool
    """Whether the round changed the model."""
    reason: str
    """Why it did not, else empty."""
    reward: float | None
    """Mean reward over the nodes' completions, as it left the masked sums."""
    zero_signal: float | None
    """Share of groups whose completions all have one reward, so that they teach nothing."""
    truncated: float | None
    """Share of completions cut at the length limit."""
    kl: float | None
    """KL divergence (nats) of the nodes' trained policies from the round's global adapter."""
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
class Guarantee(Record):
    """One (epsilon, delta) statement: whose presence is hidden, and from whom."""

    unit: str
    adversary: str
    epsilon: float
    delta: float


@dataclass(frozen=True)
class RewardSummary(Record):
    """Held-out accuracy before and after: sampled (``start``, ``end``) and greedy."""

    start: float
    end: float
    greedy_start: float
    greedy_end: float


@dataclass(frozen=True)
class RobustSummary(Record):
    """The robust rule, how many group means it drops at either end, and of how many.

    A group is a bucket, or a single client where there are none.
    """

    rule: str
    trim: int
    buckets: int

    @property
    def words(self) -> str:
        """For reading: ``trimmed mean of 4 group means``."""
        return f"{self.rule.replace('_', ' ')} of {self.buckets} group means"


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


R = TypeVar("R", bound=Record)


def to_json(record: Record) -> str:
    """Write a record as one line of JSON.

    Raises
    ------
    RunError
        A field has the wrong type, or is NaN or infinite, which JSON cannot carry. Names the field
        and its value.
    """
    text = json.dumps(asdict(cast(Any, record)))
    _parse(type(record), text)  # What is written can be read again, or is not written.
    return text


def from_json(kind: type[R], text: str) -> R:
    """Read a record of the given kind.

    Raises
    ------
    RunError
        The text is not JSON, or a field is missing, unknown, of the wrong type, NaN or infinite.
    """
    record: R = _parse(kind, text)
    return record


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _parse(kind: type[Any], text: str) -> Any:
    try:
        return _adapter(cast(Hashable, kind)).validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join([kind.__name__, *map(str, fault["loc"])])
        raise RunError(
            f"{where} = {fault['input']!r:.80}: {fault['msg']}",
            cure="write None for a figure that was not measured; "
            "read a run with the version of fedgrpo that wrote it",
        ) from None
