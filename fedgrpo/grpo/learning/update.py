"""The optimiser's side of a step: pack what can teach, differentiate, clip, move."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.learning.losses import BatchTotals, LossResult, compute_loss
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.memory import is_out_of_memory
from fedgrpo.grpo.rollout.packing import PackedBatch
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.replay import keep_nothing
from fedgrpo.model.family.precision import loss_scale

MEANS = ("clip_low", "clip_high", "mismatch")
"""Figures of a step that are means over its batches."""


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
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(self._parameters, lr=rate, weight_decay=decay)
            if self.settings.optimiser == "sgd"
            else torch.optim.AdamW(self._parameters, lr=rate, weight_decay=decay)
        )

    def set_rate(self, share: float) -> None:
        """Give the next step this share of ``grpo.learning_rate``."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * share

    def update(self, experience: Experience) -> UpdateFigures:
        """One optimiser step on all of these completions."""
        results = self._gradients(experience, self.batches(experience))
        if results is None:
            self._say_halved()
            results = self._gradients(experience, self.batches(experience, halves=2))
        if results is None:
            raise ModelError(
                "memory ran out twice in an update",
                cure="lower grpo.tokens_per_batch, or set grpo.gradient_checkpointing = true",
            )
        norm, applied = self._apply() if results else (0.0, False)
        # All figures come from the device at once, when the step is done.
        rows = torch.stack([_figures(result) for result in results]).tolist() if results else []
        loss, *means = list(zip(*rows, strict=True)) or [()] * (1 + len(MEANS))
        figures = {name: _mean(values) for name, values in zip(MEANS, means, strict=True)}
        return UpdateFigures(loss=float(sum(loss)), grad_norm=norm, applied=applied, **figures)

    def _gradients(
        self, experience: Experience, batches: Iterator[PackedBatch]
    ) -> list[LossResult] | None:
        """Add up the gradients of all batches; None if memory ran out."""
        totals, found = self.totals(experience), list[LossResult]()
        self.optimiser.zero_grad(set_to_none=True)
        with checkpointed(self.policy.adapter.causal, self.settings.gradient_checkpointing):
            try:
                found.extend(self._backward(experience, batch, totals) for batch in batches)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                return None
        return found

    def _say_halved(self) -> None:
        warnings.warn(
            "memory ran out in an update: it begins again with batches of half the size. Lower "
            "grpo.tokens_per_batch to begin so.",
            ResourceWarning,
            stacklevel=3,
        )
        keep_nothing(self.policy.adapter.causal)
        if self.policy.adapter.base.device.type == "cuda":
            torch.cuda.empty_cache()

    def batches(self, experience: Experience, halves: int = 1) -> Iterator[PackedBatch]:
        """Pack what can teach; groups without signal and truncated completions are left out.

        With 2 ``halves`` batches are half as large, a prompt's completions apart if need be.
        """
        keep = experience.useful(
            # A penalty or a bonus moves every token, whatever its reward.
            with_silent=self.settings.kl_weight > 0 or self.settings.entropy_weight > 0,
            with_truncated=self._learns_from_truncated,
        )
        for part in prompt_parts(experience.prompts, self.settings.gradient_accumulation_steps):
            chosen = [i for i in keep if i // experience.rollout.group_size in part]
            budget = self.settings.tokens_per_batch // halves
            for half in range(halves):
                own = [i for i in chosen if i % halves == half]
                yield from self.policy.pack(experience.rollout, own, budget)

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


def prompt_parts(prompts: int, count: int) -> list[range]:
    """Split the numbers of prompts into so many parts of about one size, none of them empty."""
    count = min(count, prompts)
    bounds = [round(i * prompts / count) for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


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


def _figures(result: LossResult) -> Tensor:
    """Loss and figures, float64, on the device."""
    values = [result.loss, *(result.metrics[name] for name in MEANS)]
    return torch.stack([value.double() for value in values])


def _mean(values: Iterable[float]) -> float:
    """Mean, or 0 of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
