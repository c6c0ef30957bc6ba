"""From what a trainer says of a step to the row of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedgrpo.ground.records import Evaluation
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.report.records import STEP, RoundRow

ELSEWHERE = frozenset({"step", "seconds", "applied"})
"""Figures of a step that have a field of the row."""


def step_row(step: int, metrics: StepMetrics | None, warnings: Sequence[str]) -> RoundRow:
    """Make the row of a step; without metrics that before the first one."""
    told = metrics.as_row() if metrics else {}
    applied = bool(told.get("applied", False))
    return RoundRow(
        round=step,
        applied=applied,
        reason="" if applied or not step else "nothing could be learnt from it",
        metrics=dict(_flat("", {k: v for k, v in told.items() if k not in ELSEWHERE})),
        seconds={STEP: told["seconds"]} if told else {},
        warnings=list(warnings),
        clipping_norm=None,
        update_norm=None,
        finished=0,
        dropped=0,
        buckets=0,
        epsilon=None,
        sampled=None,
        greedy=None,
        kl_base=None,
        members=None,
    )


def measured(row: RoundRow, found: Evaluation, seconds: float) -> RoundRow:
    """Add held-out figures to a row."""
    return replace(
        row,
        sampled=found.sampled,
        greedy=found.greedy,
        kl_base=found.kl_base,
        held_out_rewards=found.rewards,
        held_out_by=found.by,
        pass_at=found.pass_at,
        seconds={**row.seconds, "evaluate": seconds},
    )


def _flat(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield figures with the names of what they are in; those that are not finite say nothing."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            # What is measured beside the rest is a metric like any other.
            yield from _flat("" if key == "figures" else f"{prefix}{key}/", value)
        elif math.isfinite(value):
            yield prefix + key, float(value)
