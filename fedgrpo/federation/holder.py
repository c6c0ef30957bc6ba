"""The data holder as it is: private prompts, the resident base model, local GRPO, clipping and
noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedgrpo.data.ownership import node_prompts
from fedgrpo.derivation import derive_key
from fedgrpo.errors import PrivacyError
from fedgrpo.federation.watch import Watch
from fedgrpo.grpo.experience import Experience
from fedgrpo.grpo.isolation import require_isolation
from fedgrpo.grpo.losses import BatchTotals
from fedgrpo.grpo.metrics import StepMetrics
from fedgrpo.grpo.packing import PackedBatch
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.privacy.prompt_gradients import (
    ClippedSum,
    PromptBatch,
    clipped_gradient_sum,
    hookable,
    poisson_sample,
)
from fedgrpo.privacy.release import METRICS, ReleasePlan, release_prompts, release_update
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import RewardSettings, Scalar, Settings

Floats = NDArray[np.float64]


class LocalHolder:
    """Trains on its own prompts and hands out only what is clipped, noised and ready for masking.

    Parameters
    ----------
    settings:
        The run's.
    trainer:
        Over the holder's prompts, with the adapter that the process keeps resident.
    seed:
        Of completions and of the order of prompts. ``None`` derives one from each release's own
        key: prompt-level privacy needs completions that do not depend on which other prompts were
        sampled, and that nobody else can draw again.

    Raises
    ------
    SettingsError
        If the algorithm compares prompts with each other under prompt-level privacy. The holder
        looks for itself: the settings come from the server.
    """

    def __init__(self, settings: Settings, trainer: GRPOTrainer, seed: int | None) -> None:
        if settings.privacy.unit == "prompt":
            require_isolation(settings.grpo)
        self.settings = settings
        self.trainer = trainer
        self.seed = seed

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.interfaces.Holder`."""
        self.trainer.adapter.load(adapter)
        self.trainer.start_round(_secret_seed(key) if self.seed is None else _mix(self.seed, round))
        if plan.unit == "prompt":
            return self._prompt_release(plan, key)
        return self._update_release(plan, key)

    def _prompt_release(self, plan: ReleasePlan, key: bytes) -> Floats:
        """One clipped, noised gradient over prompts sampled by independent coins."""
        coins, noise = derive_key(key, "coins"), derive_key(key, "noise")
        rows = len(self.trainer.collector.rows)
        chosen = poisson_sample(rows, plan.expected_prompts, coins)
        if not chosen:
            nothing = np.zeros(plan.dimension), np.zeros((0, len(METRICS)))
            return release_prompts(*nothing, plan, key=noise)
        experience = self.trainer.collect(chosen, isolated=True)
        ascent = self.prompt_gradients(experience, plan.clipping_norm)
        figures = self._figures({**experience.per_prompt(), "kl": np.zeros(experience.prompts)})
        below = ascent.norms <= plan.clipping_norm if plan.indicator_share else None
        return release_prompts(-ascent.vector, figures, plan, below, noise)

    def prompt_gradients(self, experience: Experience, clipping_norm: float) -> ClippedSum:
        """Sum what the prompts of an experience teach, each clipped by itself."""
        return clipped_gradient_sum(
            self.trainer.adapter.causal,
            list(self.trainer.adapter.trainable.values()),
            self._prompt_batches(experience),
            clipping_norm,
        )

    def _prompt_batches(self, experience: Experience) -> list[PromptBatch]:
        """Batches whose loss has divisors that no other prompt can change."""
        grpo, adapter = self.settings.grpo, self.trainer.adapter
        length = grpo.max_completion_length
        constant = BatchTotals(grpo.group_size, grpo.group_size * length, length)
        alone = not hookable(adapter.causal, list(adapter.trainable.values()))
        batches = self.trainer.updater.batches(experience, one_prompt_each=alone)
        return [
            PromptBatch(partial(self._loss, experience, batch, constant), batch.prompt_of_row)
            for batch in batches
        ]

    def _loss(self, experience: Experience, batch: PackedBatch, totals: BatchTotals) -> Tensor:
        return self.trainer.updater.loss(experience, batch, totals).loss

    def _update_release(self, plan: ReleasePlan, key: bytes) -> Floats:
        """The adapter's change over a few local optimiser steps."""
        delta, steps = self.local_update()
        means = {
            name: np.array([np.mean([getattr(step, name) for step in steps])]) for name in METRICS
        }
        # The last step's divergence is the round's drift; the mean would halve it.
        means["kl"] = np.array([steps[-1].kl])
        return release_update(delta, self._figures(means)[0], plan, derive_key(key, "noise"))

    def _figures(self, figures: Mapping[str, Floats]) -> Floats:
        """Scaled metrics of shape (n, k), NaN where they stay at home: that contributes nothing."""
        scaled = scaled_metrics(figures, self.settings.reward)
        scaled[:, [name not in self.settings.privacy.metrics for name in METRICS]] = np.nan
        return scaled

    def local_update(self) -> tuple[Floats, list[StepMetrics]]:
        """Take a round's local steps: the adapter's change, shape (d,), and each step's figures."""
        before = self.trainer.adapter.vector().astype(np.float64)
        steps = list(self.trainer.train(self.settings.grpo.steps))
        return self.trainer.adapter.vector() - before, steps


def local_holder(settings: Settings, node_config: Mapping[str, Scalar]) -> LocalHolder:
    """Make the holder that a node's own configuration describes; a process keeps it for the next
    message.

    Raises
    ------
    DataError
        If the node names no prompts, or they cannot be used.
    PrivacyError
        If there are fewer prompts than the stated epsilon assumes.
    """
    return _holder(_computed(settings), tuple(sorted(node_config.items())))


def _computed(settings: Settings) -> Settings:
    """Settings without the section that decides nothing of what is computed."""
    return settings.model_copy(update={"run": type(settings.run)()})


@lru_cache(maxsize=64)
def _holder(settings: Settings, node_config: tuple[tuple[str, Scalar], ...]) -> LocalHolder:
    config = dict(node_config)
    rows = node_prompts(settings, config)
    if settings.privacy.unit == "prompt" and len(rows) < settings.data.min_prompts:
        raise PrivacyError(
            f"this node has {len(rows)} prompts, data.min_prompts promises at least "
            f"{settings.data.min_prompts}",
            cure="bring more prompts, or agree on a smaller data.min_prompts and larger epsilon",
        )
    partition = config.get("partition-id")
    private = settings.privacy.unit == "prompt" or partition is None
    trainer = GRPOTrainer(
        _resident(settings),
        RewardMixture.from_settings(settings.reward),
        rows,
        settings=settings.grpo,
    )
    return LocalHolder(
        settings, trainer, None if private else _mix(settings.seed, int(partition or 0))
    )


def resident_adapter(settings: Settings) -> Adapter:
    """One base model a process: simulated holders take turns on it, each loading the round's
    adapter first.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    return _resident(_computed(settings))


@lru_cache(maxsize=1)
def _resident(settings: Settings) -> Adapter:
    torch.set_num_threads(settings.simulation.cpus_per_holder)
    return Adapter(load_base(settings.model), settings.adapter, settings.seed)


def scaled_metrics(figures: Mapping[str, Floats], reward: RewardSettings) -> Floats:
    """Bring metrics, each of shape (n,), to [0, 1] in the order of METRICS; shape (n, k)."""
    scaled = dict(figures)
    scaled["reward"] = (figures["reward"] - reward.minimum) / (reward.maximum - reward.minimum)
    return np.clip(np.stack([scaled[name] for name in METRICS], axis=1), 0.0, 1.0)


def _secret_seed(key: bytes) -> int:
    """63 bits of a seed that only the holder of the key knows."""
    return int.from_bytes(derive_key(key, "completions")[:8], "big") >> 1


def _mix(seed: int, number: int) -> int:
    """A seed for one holder or round that shares nothing with its neighbours'."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 1
