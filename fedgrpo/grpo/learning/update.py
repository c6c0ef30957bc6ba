"""The optimiser's side of a step: pack what can teach, differentiate, clip, move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.learning.losses import BatchTotals, LossResult, compute_loss
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.packing import PackedBatch
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.family.precision import loss_scale


@dataclass(frozen=True)
class UpdateFigures:
    """Figures of one optimiser step.

    Attributes
    ----------
    loss, grad_norm:
        Of the whole optimiser batch; the norm before clipping.
    clip_low, clip_high:
        Shares of tokens whose ratio the clip bit from below and from above.
    mismatch:
        Mean k3 divergence per token of the policy, as the update scores it, from the sampler. At
        the first update of a batch of completions both are the same weights, so it measures
        rounding and faults; later, how stale the completions are.
    applied:
        False if nothing could be learned or the gradient was not finite.
    """

    loss: float
    grad_norm: float
    clip_low: float
    clip_high: float
    mismatch: float
    applied: bool


class Updater:
    """Moves a policy's adapter down a policy loss."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.settings = policy.settings
        self.start_round()

    def start_round(self) -> None:
        """Begin with a fresh optimiser."""
        rate = self.settings.learning_rate
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(self._parameters, lr=rate)
            if self.settings.optimiser == "sgd"
            else torch.optim.AdamW(self._parameters, lr=rate, weight_decay=0.0)
        )

    def update(self, experience: Experience) -> UpdateFigures:
        """One optimiser step on all of these completions."""
        totals = self.totals(experience)
        self.optimiser.zero_grad(set_to_none=True)
        with checkpointed(self.policy.adapter.causal, self.settings.gradient_checkpointing):
            results = [
                self._backward(experience, batch, totals) for batch in self.batches(experience)
            ]
        norm, applied = self._apply() if results else (0.0, False)
        means = {
            name: _mean(result.metrics[name] for result in results)
            for name in ("clip_low", "clip_high", "mismatch")
        }
        loss = float(sum(result.loss.item() for result in results))
        return UpdateFigures(loss=loss, grad_norm=norm, applied=applied, **means)

    def batches(self, experience: Experience) -> Iterator[PackedBatch]:
        """Pack what can teach; groups without signal and truncated completions are left out."""
        keep = experience.useful(
            # A penalty or a bonus moves every token, whatever its reward.
            with_silent=self.settings.kl_weight > 0 or self.settings.entropy_weight > 0,
            with_truncated=self._learns_from_truncated,
        )
        return self.policy.pack(experience.rollout, keep)

    def totals(self, experience: Experience) -> BatchTotals:
        """Divisors of the whole optimiser batch, silent groups included."""
        counted = experience.rollout.mask[experience.rollout.ended | self._learns_from_truncated]
        return BatchTotals(
            len(experience.advantages), int(counted.sum()), self.settings.max_completion_length
        )

    def loss(
        self,
        experience: Experience,
        batch: PackedBatch,
        totals: BatchTotals,
        ref_logps: Tensor | None = None,
    ) -> LossResult:
        """Loss of one packed batch under the adapter as it stands."""
        settings, device = self.settings, self.policy.adapter.base.device
        logps, entropy = self._scores(experience, batch)
        return compute_loss(
            settings.loss,
            logps,
            experience.rollout.logps[batch.completions].to(device),
            experience.advantages[batch.completions].to(device),
            experience.rollout.mask[batch.completions].to(device),
            ref_logps=ref_logps,
            clip_low=settings.clip_low or None,
            clip_high=settings.clip_high or None,
            kl=settings.kl,
            kl_weight=settings.kl_weight,
            entropy=entropy,
            entropy_weight=settings.entropy_weight,
            totals=totals,
            **_marks(experience, batch, device),
        )

    def _scores(self, experience: Experience, batch: PackedBatch) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities, and entropies where a bonus asks for them; shape (N, T)."""
        if self.settings.entropy_weight:
            return self.policy.logps_and_entropy(experience.rollout, batch)
        return self.policy.logps(experience.rollout, batch), None

    def _backward(
        self, experience: Experience, batch: PackedBatch, totals: BatchTotals
    ) -> LossResult:
        """Add one batch's gradient; its loss comes back without the graph."""
        # The reference goes first: visiting its values would invalidate a graph that exists
        # already.
        penalised = self.settings.kl_weight > 0
        reference = self.policy.reference_logps(experience.rollout, batch) if penalised else None
        result = self.loss(experience, batch, totals, reference)
        (result.loss * self._scale).backward()
        return LossResult(result.loss.detach(), result.metrics)

    def _apply(self) -> tuple[float, bool]:
        """Clip and step; a gradient that is not finite is thrown away."""
        limit = self.settings.max_grad_norm
        for parameter in self._parameters:
            if self._scale != 1.0 and parameter.grad is not None:
                parameter.grad /= self._scale
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        if not np.isfinite(norm):
            return norm, False
        self.optimiser.step()
        return norm, True

    @property
    def _scale(self) -> float:
        return loss_scale(self.policy.adapter.causal.dtype)

    @property
    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.policy.adapter.trainable.values())

    @property
    def _learns_from_truncated(self) -> bool:
        """Punishing what runs long means to learn from it."""
        return self.settings.overlong_share > 0


@contextmanager
def checkpointed(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Let a model's layers compute their activations again in the backward pass, for a while.

    Layers do so in training mode only, so they alone are put into it: dropout inside stays off.

    Raises
    ------
    ModelError
        If the model has no such layers.
    """
    if not wanted:
        yield
        return
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"a model of type {model.config.model_type!r} cannot compute activations again",
            cure="set grpo.gradient_checkpointing = false, and lower grpo.tokens_per_batch",
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer in layers:
            layer.training = False
        model.gradient_checkpointing_disable()


def _marks(experience: Experience, batch: PackedBatch, device: torch.device) -> dict[str, Tensor]:
    """Which completions a critique helped to, for the loss that asks."""
    if experience.refined is None:
        return {}
    return {"refined": experience.refined[batch.completions].to(device)}


def _mean(values: Iterable[float]) -> float:
    """Mean, or 0 of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
