"""A client's figures as its release takes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedgrpo.privacy.release import METRICS
from fedgrpo.settings import RewardSettings, Settings

Floats = NDArray[np.float64]


def told_metrics(figures: Mapping[str, Floats], settings: Settings) -> Floats:
    """Scaled metrics of shape (n, k), NaN where they stay at home: that contributes nothing."""
    scaled = scaled_metrics(figures, settings.reward)
    scaled[:, [name not in settings.privacy.metrics for name in METRICS]] = np.nan
    return scaled


def scaled_metrics(figures: Mapping[str, Floats], reward: RewardSettings) -> Floats:
    """Bring metrics, each of shape (n,), to [0, 1] in the order of METRICS; shape (n, k)."""
    scaled = dict(figures)
    scaled["reward"] = (figures["reward"] - reward.minimum) / (reward.maximum - reward.minimum)
    return np.clip(np.stack([scaled[name] for name in METRICS], axis=1), 0.0, 1.0)
