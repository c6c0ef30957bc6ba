"""From a round's outcome to the next server state, to a row and to an entry of the ledger."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from fedgrpo.federation.protocols.base import RoundOutcome
from fedgrpo.federation.server.checkpoint import ServerState
from fedgrpo.federation.server.optimisers import rate_at, server_step
from fedgrpo.federation.wire.plans import following_radius, norms_in, release_plan
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.records import Evaluation
from fedgrpo.ledger import RoundEntry
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.accounting.guarantees import guarantees, worst_epsilon
from fedgrpo.privacy.adaptive import next_clipping_norm
from fedgrpo.privacy.release import Aggregate, ReleasePlan
from fedgrpo.report.records import RoundRow
from fedgrpo.report.writer import RunWriter
from fedgrpo.rewards.loading import span_of
from fedgrpo.robust.rules import RULES
from fedgrpo.settings import METRICS, Settings, figure_name
from fedgrpo.settings.protocols import protocol_of

REASONS_SHOWN = 5
"""Different reasons of nodes that are named in a message."""


@dataclass
class RoundClock:
    """Times the phases of one round and tells the run's writer about them."""

    round: int
    rounds: int
    writer: RunWriter | None
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

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


def apply_aggregate(
    settings: Settings, state: ServerState, aggregate: Aggregate, clients: int
) -> ServerState:
    """Step the optimiser, move the adapter, and let clipping norm and radius follow what was
    released.

    C stays where the clients in the aggregate tell about fewer than ``privacy.adaptive_min`` norms.
    """
    progress = state.progress
    plan = release_plan(
        settings, state.adapter.vector.size, progress.clipping_norm, progress.radius
    )
    rate = rate_at(settings.server, progress.round, settings.rounds)
    optimiser, update = server_step(settings.server, state.optimiser, aggregate.delta, rate)
    adapter = state.adapter.moved(state.adapter.vector.astype(np.float64) + update)
    moved = replace(
        progress,
        steps=optimiser.steps,
        clipping_norm=_next_norm(settings, progress.clipping_norm, aggregate.share_below, clients),
        radius=following_radius(settings, plan, aggregate.delta, clients),
    )
    # Simulated attackers look at it too.
    kept = RULES[settings.robust.rule].history or settings.simulation.byzantine
    last = aggregate.delta if kept else state.last
    return ServerState(adapter, moved, optimiser, last)


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
        held_out_rewards=evaluation.rewards if evaluation else {},
        bytes=clock.bytes,
        held_out_by=evaluation.by if evaluation else {},
        pass_at=evaluation.pass_at if evaluation else {},
    )


def make_entry(
    settings: Settings,
    before: AdapterState,
    state: ServerState,
    outcome: RoundOutcome,
    plan: ReleasePlan,
) -> RoundEntry:
    """Put a round into its entry of the ledger.

    Parameters
    ----------
    settings:
        The run's.
    before, state:
        The adapter that the round began with, and what it came to; ``state.progress.round`` is
        still the round's number.
    outcome, plan:
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
        clipping_norm=plan.clipping_norm,
        radius=plan.radius,
        noise=protocol_of(settings).noise_place(settings),
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
    own = {figure_name(text): span_of(text) for text in settings.privacy.own_metrics}
    spans = {n: own[n] if n in own else METRICS[n].span(settings.reward) for n in metrics}
    return {
        name: low + (high - low) * metrics[name]
        for name, (low, high) in spans.items()
        if name in own or settings.grpo.steps >= METRICS[name].least_steps
    }


def count_reasons(reasons: Iterable[str]) -> str:
    """Count reasons, most frequent first: ``3 x no reply in time; 1 x DataError: ...``."""
    counted = Counter(reasons).most_common()
    shown = "; ".join(f"{count} x {reason}" for reason, count in counted[:REASONS_SHOWN])
    rest = len(counted) - REASONS_SHOWN
    return shown + (f"; and {rest} more" if rest > 0 else "")
