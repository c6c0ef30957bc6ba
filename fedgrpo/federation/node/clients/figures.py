"""A client's figures as its release takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.settings import METRICS, RewardSettings, Settings

Floats = NDArray[np.float64]


def of_steps(steps: Sequence[StepMetrics]) -> dict[str, Floats]:
    """Figures of a round's local steps, each of shape (1,)."""
    found = {name: [_figure(step, name) for step in steps] for name in METRICS}
    return {
        name: np.array([values[-1] if METRICS[name].last else np.mean(values)])
        for name, values in found.items()
    }


def of_groups(groups: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Means over groups of completions, each of shape (1,); 0 of what no group tells."""
    means = {name: np.mean([group[name] for group in groups], axis=0) for name in groups[0]}
    return {name: means.get(name, np.zeros(1)) for name in METRICS}


def told_metrics(figures: Mapping[str, Floats], settings: Settings) -> Floats:
    """Scaled metrics of shape (n, k), NaN where they stay at home: that contributes nothing."""
    scaled = scaled_metrics(figures, settings.reward)
    scaled[:, [name not in settings.privacy.metrics for name in METRICS]] = np.nan
    return scaled


def scaled_metrics(figures: Mapping[str, Floats], reward: RewardSettings) -> Floats:
    """Bring metrics, each of shape (n,), to [0, 1] in the order of METRICS; shape (n, k)."""
    spans = {name: metric.span(reward) for name, metric in METRICS.items()}
    scaled = [(figures[name] - low) / (high - low) for name, (low, high) in spans.items()]
    return np.clip(np.stack(scaled, axis=1), 0.0, 1.0)


def _figure(step: StepMetrics, name: str) -> float:
    return step.figures[name] if name in step.figures else float(getattr(step, name))
