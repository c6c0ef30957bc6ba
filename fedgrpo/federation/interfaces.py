"""What the federation asks of a data holder and of an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings


class Holder(Protocol):
    """A data holder: private prompts, a base model, and local training."""

    def contribute(
        self,
        adapter: AdapterState,
        plan: ReleasePlan,
        round: int,
        key: bytes,
    ) -> NDArray[np.float64]:
        """Train from the round's global adapter and return what may be summed under masks.

        Parameters
        ----------
        adapter:
            The round's global adapter, with its frozen basis.
        plan:
            How the contribution is normalised, clipped and noised.
        round:
            Round number, from 1.
        key:
            32 secret bytes, the same for the same plan and for no other. All randomness that must
            stay secret comes from it (:func:`fedgrpo.derivation.derive_key`), so that a repeated
            round is the same release.

        Returns
        -------
        NDArray[np.float64]
            Finite, shape ``(plan.size,)``: delta and metrics, normalised, clipped and noised.

        Raises
        ------
        AdapterError
            If the adapter has another layout than the holder's own model and settings give.
        """
        ...


HolderFactory = Callable[[Settings, Mapping[str, Scalar]], Holder]
"""Makes a holder from the run's settings and the node's own configuration."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of one global adapter.

    Attributes
    ----------
    sampled, greedy:
        Mean reward of completions sampled at the training temperature, and of the most likely ones.
    kl_base:
        KL divergence (nats) of the adapter from the initial one.
    """

    sampled: float
    greedy: float
    kl_base: float


class Evaluator(Protocol):
    """Measures an adapter on prompts that no holder has."""

    def evaluate(self, adapter: AdapterState) -> Evaluation:
        """Measure one adapter. The same adapter gives the same figures."""
        ...
