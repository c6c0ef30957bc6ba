"""From bucket means to the next server state: robust rule, noise, optimiser, clipping norm."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedgrpo.federation.interfaces import Evaluation
from fedgrpo.federation.protocols.buckets.secure_round import BucketMean
from fedgrpo.federation.server.checkpoint import ServerState
from fedgrpo.federation.server.optimisers import rate_at, server_step
from fedgrpo.federation.wire.plans import norms_in
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ledger import RoundEntry
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.accounting.guarantees import guarantees, worst_epsilon
from fedgrpo.privacy.adaptive import next_clipping_norm
from fedgrpo.privacy.noise import add_noise
from fedgrpo.privacy.release import Aggregate, ReleasePlan, read_aggregate, server_noise_std
from fedgrpo.report.records import RoundRow
from fedgrpo.report.writer import RunWriter
from fedgrpo.robust.rules import combine, sensitivity
from fedgrpo.settings import METRICS, Settings
from fedgrpo.settings.checks import noise_by

REASONS_SHOWN = 5
"""Different reasons of nodes that are named in a message."""


@dataclass(frozen=True)
class RoundOutcome:
    """What a round came to.

    Attributes
    ----------
    reason:
        Why it was skipped; empty for a round that changed the adapter.
    aggregate:
        What was read from the robust mean, if the round was not skipped.
    finished:
        Nodes whose update is in the result; 0 if the round was skipped.
    dropped:
        Nodes that were asked and lost on the way.
    buckets:
        Bucket means that the rule saw.
    cohort:
        Nodes that were asked.
    commitments:
        Of the nodes in the result to their releases.
    members:
        Signing keys (hex) of the committee members that computed the result; none without one.
    released:
        Whether anything of the round can have come out, so that it counts for epsilon.
    """

    reason: str = ""
    aggregate: Aggregate | None = None
    finished: int = 0
    dropped: int = 0
    buckets: int = 0
    cohort: int = 0
    commitments: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    released: bool = True


@dataclass
class RoundClock:
    """Times the phases of one round and tells the run's writer about them."""

    round: int
    rounds: int
    writer: RunWriter | None
    seconds: dict[str, float] = field(default_factory=dict)

    def announce(self, name: str, detail: str = "") -> None:
        """Say that a phase begins."""
        if self.writer:
            self.writer.phase(self.round, self.rounds, name, detail)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, whether it succeeds or fails."""
        self.announce(name)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun


def robust_aggregate(
    settings: Settings,
    plan: ReleasePlan,
    buckets: Sequence[BucketMean],
    key: bytes | None = None,
) -> Aggregate:
    """Combine bucket means by the robust rule, add the server's noise if it is the server's to add,
    and read.

    Adversary of server noise: whoever sees the models that are released. The server itself sees the
    bucket means. ``key`` (32 secret bytes) makes the noise that of a repeated round too, see
    :func:`fedgrpo.privacy.noise.add_noise`.

    Raises
    ------
    CohortError
        If the rule needs more buckets.
    """
    rule, trim = settings.robust.rule, settings.robust.trim
    # Of shape (B, size) for no buckets too, which the rule refuses with its own numbers.
    means: NDArray[np.float64] = np.reshape([bucket.mean for bucket in buckets], (-1, plan.size))
    combined = combine(rule, means, trim)
    if settings.privacy.unit == "none" or settings.privacy.noise == "client":
        return _sent(settings, read_aggregate(combined, plan))
    # One client moves the mean over its bucket's survivors, so the smallest number of survivors
    # counts.
    smallest = min(len(bucket.survivors) for bucket in buckets)
    std = server_noise_std(
        settings.privacy,
        sensitivity(rule, len(buckets), trim, smallest),
        plan.expected_prompts,
        rounding=max(bucket.step for bucket in buckets) * math.sqrt(plan.size),
    )
    return _sent(settings, read_aggregate(add_noise(combined, std, key), plan))


def read_opened(settings: Settings, plan: ReleasePlan, mean: NDArray[np.float64]) -> Aggregate:
    """Read what a committee opened: trimmed and noised already."""
    return _sent(settings, read_aggregate(mean, plan))


def _sent(settings: Settings, aggregate: Aggregate) -> Aggregate:
    """Leave out metrics that no client sends: where they would be is a half, or noise about it."""
    names: tuple[str, ...] = settings.privacy.metrics
    sent = {name: aggregate.metrics[name] for name in METRICS if name in names}
    return replace(aggregate, metrics=sent)


def apply_aggregate(
    settings: Settings, state: ServerState, aggregate: Aggregate, clients: int
) -> ServerState:
    """Step the optimiser, move the adapter, and let the clipping norm follow its quantile.

    C stays where the clients in the aggregate tell about fewer than ``privacy.adaptive_min`` norms.
    """
    progress = state.progress
    rate = rate_at(settings.server, progress.round, settings.rounds)
    optimiser, update = server_step(settings.server, state.optimiser, aggregate.delta, rate)
    adapter = state.adapter.moved(state.adapter.vector.astype(np.float64) + update)
    moved = replace(
        progress,
        steps=optimiser.steps,
        clipping_norm=_next_norm(settings, progress.clipping_norm, aggregate.share_below, clients),
    )
    return ServerState(adapter, moved, optimiser)


def _next_norm(
    settings: Settings, current: float, share_below: float | None, clients: int
) -> float:
    privacy = settings.privacy
    if share_below is None or norms_in(settings, clients) < privacy.adaptive_min:
        return current
    return next_clipping_norm(
        current,
        share_below,
        quantile=privacy.quantile,
        rate=privacy.clipping_rate,
        start=privacy.clipping_norm,
    )


def make_row(
    settings: Settings,
    state: ServerState,
    outcome: RoundOutcome,
    clock: RoundClock,
    clipping_norm: float,
    evaluation: Evaluation | None,
) -> RoundRow:
    """Put a round's figures into its row of ``metrics.jsonl``."""
    aggregate = outcome.aggregate
    return RoundRow(
        round=clock.round,
        applied=not outcome.reason,
        reason=outcome.reason,
        metrics=told(settings, aggregate.metrics) if aggregate else {},
        clipping_norm=clipping_norm,
        update_norm=float(np.linalg.norm(aggregate.delta)) if aggregate else None,
        finished=outcome.finished,
        dropped=outcome.dropped,
        buckets=outcome.buckets,
        epsilon=worst_epsilon(settings, state.progress.charged),
        members=len(outcome.members) or None,
        seconds=dict(clock.seconds),
        sampled=evaluation.sampled if evaluation else None,
        greedy=evaluation.greedy if evaluation else None,
        kl_base=evaluation.kl_base if evaluation else None,
    )


def make_entry(
    settings: Settings,
    before: AdapterState,
    state: ServerState,
    outcome: RoundOutcome,
    clipping_norm: float,
) -> RoundEntry:
    """Put a round into its entry of the ledger.

    Parameters
    ----------
    settings:
        The run's.
    before, state:
        The adapter that the round began with, and what it came to; ``state.progress.round`` is
        still the round's number.
    outcome, clipping_norm:
        Of the round.
    """
    privacy = settings.privacy
    return RoundEntry(
        round=state.progress.round,
        model=before.layout,
        basis=before.basis_hash,
        settings=settings.fingerprint(),
        adapter=before.vector_hash,
        result=state.adapter.vector_hash,
        cohort=outcome.cohort,
        finished=outcome.finished,
        groups=outcome.buckets,
        rule=settings.robust.rule,
        trim=settings.robust.trim,
        clipping_norm=clipping_norm,
        noise=noise_by(settings),
        noise_multiplier=0.0 if privacy.unit == "none" else privacy.noise_multiplier,
        epsilon=guarantees(settings, state.progress.charged),
        aborted=outcome.reason,
        protocol=settings.aggregation.protocol,
        version=VERSION,
        commitments=outcome.commitments,
        committee=outcome.members,
        released=outcome.released,
    )


def told(settings: Settings, metrics: Mapping[str, float]) -> dict[str, float]:
    """Undo the clients' scaling, and leave out what says nothing after so few local steps."""
    spans = {name: METRICS[name].span(settings.reward) for name in metrics}
    return {
        name: low + (high - low) * metrics[name]
        for name, (low, high) in spans.items()
        if settings.grpo.steps >= METRICS[name].least_steps
    }


def count_reasons(reasons: Iterable[str]) -> str:
    """Count reasons, most frequent first: ``3 x no reply in time; 1 x DataError: ...``."""
    counted = Counter(reasons).most_common()
    shown = "; ".join(f"{count} x {reason}" for reason, count in counted[:REASONS_SHOWN])
    rest = len(counted) - REASONS_SHOWN
    return shown + (f"; and {rest} more" if rest > 0 else "")
