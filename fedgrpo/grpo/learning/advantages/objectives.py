"""Rules for several objectives at once."""

from __future__ import annotations

import numpy as np

from fedgrpo.grpo.learning.advantages.base import (
    STD_FLOOR,
    Floats,
    Outcomes,
    register_advantage,
    rounding,
    whiten,
)


@register_advantage("gdpo", batch_wide=True)
def gdpo(outcomes: Outcomes) -> Floats:
    """Each objective normalised in its group, weighed, summed, then whitened (arXiv 2601.05242).

    Normalising before summing keeps combinations apart that share a total, such as (1, 0) and
    (0, 1). An objective that does not apply to a completion adds nothing to it and takes no part
    in its group's mean and spread.
    """
    scores = _standard_scores(outcomes.objectives)
    summed: Floats = (outcomes.weights[:, None, None] * scores).sum(axis=0)
    return whiten(summed, np.ones_like(summed))


def _standard_scores(objectives: Floats) -> Floats:
    """(R - mean) / std over the last axis of (K, P, G), over what is not NaN; 0 where it is."""
    applies = ~np.isnan(objectives)
    known = np.where(applies, objectives, 0.0)
    count = applies.sum(axis=-1, keepdims=True)
    mean = known.sum(axis=-1, keepdims=True) / np.maximum(count, 1)
    from_mean = np.where(applies, known - mean, 0.0)
    from_mean[np.abs(from_mean) <= rounding(known, axis=-1)] = 0.0
    variance = (from_mean**2).sum(axis=-1, keepdims=True) / np.maximum(count - 1, 1)
    scores: Floats = from_mean / np.maximum(np.sqrt(variance), STD_FLOOR)
    return scores
