"""A client's figures as its release takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.grpo.rollout.experience import nanmean
from fedgrpo.settings import METRICS, OWN, RewardSettings, Settings

Floats = NDArray[np.float64]
Span = tuple[float, float]


def of_steps(
    steps: Sequence[StepMetrics], names: Sequence[str] = tuple(METRICS)
) -> dict[str, Floats]:
    """Figures of a round's local steps, each of shape (1,); NaN of what no step tells."""
    found = {name: np.array([_figure(step, name) for step in steps]) for name in names}
    return {
        name: np.array([values[-1] if _tells_last(name) else nanmean(values)])
        for name, values in found.items()
    }


def of_groups(groups: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Means over groups of completions, each of shape (1,): of those that tell a figure. 0 of what
    nobody measures for a group.
    """
    means = {
        name: np.array([nanmean(np.array([group[name][0] for group in groups]))])
        for name in groups[0]
    }
    return {name: np.zeros(1) for name in METRICS} | means


def told_metrics(
    figures: Mapping[str, Floats],
    settings: Settings,
    spans: Mapping[str, Span] = MappingProxyType({}),
) -> Floats:
    """Scaled metrics of shape (n, k), NaN where they stay at home: that contributes nothing.

    Parameters
    ----------
    figures:
        By name, each of shape (n,).
    spans:
        Least and largest value of users' own. One without is not told.
    """
    names, leaving = settings.privacy.coordinates, settings.privacy.metrics
    scaled = scaled_metrics(figures, settings.reward, names, spans)
    scaled[:, [name in METRICS and name not in leaving for name in names]] = np.nan
    return scaled


def scaled_metrics(
    figures: Mapping[str, Floats],
    reward: RewardSettings,
    names: Sequence[str] = tuple(METRICS),
    spans: Mapping[str, Span] = MappingProxyType({}),
) -> Floats:
    """Bring metrics, each of shape (n,), to [0, 1] in the order of ``names``; shape (n, k)."""
    known = {name: metric.span(reward) for name, metric in METRICS.items()} | dict(spans)
    nothing = np.full_like(figures["reward"], np.nan)
    scaled = [
        _scaled(figures[name], known[name]) if name in figures and name in known else nothing
        for name in names
    ]
    return np.clip(np.stack(scaled, axis=1), 0.0, 1.0)


def _scaled(values: Floats, span: Span) -> Floats:
    low, high = span
    return (values - low) / (high - low)


def _figure(step: StepMetrics, name: str) -> float:
    if name in step.figures or name.startswith(OWN):
        return step.figures.get(name, np.nan)
    return float(getattr(step, name))


def _tells_last(name: str) -> bool:
    return name in METRICS and METRICS[name].last
