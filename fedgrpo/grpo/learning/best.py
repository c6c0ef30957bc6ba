"""Keep the best adapter: training often falls back after it has converged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 5
"""Batches over which the reward is averaged: one batch says little."""


@dataclass(frozen=True)
class BestAdapter:
    """The adapter at the end of the best window."""

    step: int
    """Optimiser steps that had been taken."""
    reward: float
    """Mean training reward over the window."""
    vector: NDArray[np.float32]
    """Its trainable values, float32, shape (d,)."""


class BestKeeper:
    """Watches rewards and remembers the adapter of the best window."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.best: BestAdapter | None = None

    def see(self, step: int, reward: float, vector: NDArray[np.float32]) -> None:
        """Take in the mean reward of completions that the adapter ``vector`` has just sampled."""
        self.recent.append(reward)
        mean = sum(self.recent) / len(self.recent)
        full = len(self.recent) == WINDOW
        if full and (self.best is None or mean > self.best.reward):
            self.best = BestAdapter(step, mean, vector.copy())
