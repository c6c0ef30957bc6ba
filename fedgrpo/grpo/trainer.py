"""GRPO on one machine: sample groups, judge, compare, step. Knows nothing of any federation.

>>> from fedgrpo import GRPOTrainer
>>> trainer = GRPOTrainer("tiny", my_reward, [{"prompt": "sort 312=", "answer": "123"}])
>>> for metrics in trainer.train(steps=100):
...     print(metrics.reward)
>>> trainer.save("adapter")
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedgrpo.data.prompts import PromptRow, as_row
from fedgrpo.errors import DataError
from fedgrpo.grpo.advantages import compute_advantages
from fedgrpo.grpo.experience import (
    Experience,
    encode_prompts,
    join_results,
    judge,
    replace_groups,
)
from fedgrpo.grpo.health import CONSTANT_STEPS, constant_rewards
from fedgrpo.grpo.losses import BatchTotals, LossResult, compute_loss, k3
from fedgrpo.grpo.packing import PackedBatch, pack
from fedgrpo.grpo.sampling import Rollout, SamplingPlan, completion_ids, sample
from fedgrpo.grpo.scoring import completion_logps
from fedgrpo.model.base import BaseModel, load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.overlong import soft_overlong
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

CLIP_METRICS = ("clip_low", "clip_high")

DRIFT_SAMPLE = 16
"""Completions on which the divergence is measured where no penalty needs it on all."""

RewardArgument = RewardMixture | Callable[..., Any] | Sequence[Callable[..., Any]]


@dataclass(frozen=True)
class StepMetrics:
    """Figures of one optimiser step.

    Attributes
    ----------
    rewards, reward_spreads:
        By reward function: mean over the completions that it applies to (NaN if none), and mean
        over groups of the standard deviation within the group.
    reward, zero_signal, truncated:
        Mean weighted reward; shares of groups without signal and of completions cut by the length
        limit. Before any group is replaced: they describe the policy and not the choice.
    kl:
        Mean k3 estimate per token of the policy before the step against the reference.
    loss, grad_norm, clip_low, clip_high:
        Of the update; ``grad_norm`` before clipping.
    length:
        Mean completion length in tokens.
    applied:
        False if nothing could be learned or the gradient was not finite.
    seconds:
        Wall time of the step.
    """

    reward: float
    rewards: Mapping[str, float]
    reward_spreads: Mapping[str, float]
    zero_signal: float
    truncated: float
    kl: float
    loss: float
    grad_norm: float
    clip_low: float
    clip_high: float
    length: float
    applied: bool
    seconds: float


class GRPOTrainer:
    """Group relative policy optimisation of a LoRA adapter (arXiv 2402.03300).

    Parameters
    ----------
    model:
        ``tiny``, a folder, a Hub name, or an :class:`Adapter` that is loaded already.
    reward_funcs:
        One function, several, or a weighted mixture; TRL's convention ``f(prompts, completions,
        **columns)``.
    prompts:
        Rows with a ``prompt`` (text or chat messages) and columns for the rewards.
    settings, adapter_settings:
        Algorithm and adapter; see :mod:`fedgrpo.settings`.
    seed:
        Of prompts and completions. ``None`` draws one from the operating system, as privacy asks
        for.
    """

    def __init__(
        self,
        model: str | BaseModel | Adapter,
        reward_funcs: RewardArgument,
        prompts: Sequence[PromptRow | Mapping[str, Any]],
        *,
        settings: GRPOSettings | None = None,
        adapter_settings: AdapterSettings | None = None,
        seed: int | None = 0,
    ) -> None:
        self.settings = settings or GRPOSettings()
        self.adapter = _adapter(model, adapter_settings or AdapterSettings(), seed or 0)
        self.reward = _mixture(reward_funcs)
        self.rows = [
            row if isinstance(row, PromptRow) else as_row(row, "prompts", number)
            for number, row in enumerate(prompts, start=1)
        ]
        if not self.rows:
            raise DataError("there are no prompts", cure="give at least one row with a prompt")
        base = self.adapter.base
        self.encoded = encode_prompts(base.tokenizer, self.rows, self.settings.max_prompt_length)
        self.generator = torch.Generator(base.device)
        self.start_round(seed)

    def start_round(self, seed: int | None) -> None:
        """Take the adapter as it stands as reference, with a fresh optimiser and fresh random
        numbers.

        What follows depends on adapter, seed and settings alone, so a federated round can be
        repeated.
        """
        self._rng = np.random.default_rng(seed)
        self.generator.manual_seed(int(self._rng.integers(2**63)))
        self._order: list[int] = []
        self.reference = self.adapter.vector()
        self.reward.bind(self.adapter)
        self.optimiser = self._new_optimiser()

    def _new_optimiser(self) -> torch.optim.Optimizer:
        parameters, rate = list(self.adapter.trainable.values()), self.settings.learning_rate
        if self.settings.optimiser == "sgd":
            return torch.optim.SGD(parameters, lr=rate)
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)

    def train(self, steps: int) -> Iterator[StepMetrics]:
        """Take optimiser steps, yielding the figures of each."""
        recent: deque[StepMetrics] = deque(maxlen=CONSTANT_STEPS)
        for _ in range(steps):
            recent.append(self.step(self.next_prompts()))
            for sentence in constant_rewards(recent):
                warnings.warn(sentence, stacklevel=2)
            yield recent[-1]

    def step(self, chosen: Sequence[int]) -> StepMetrics:
        """One step on the prompts with these numbers."""
        started = time.monotonic()
        first = self.collect(chosen)
        experience = self._refilled(first)
        totals = self.totals(experience)
        few = min(DRIFT_SAMPLE, len(experience.advantages))
        kl = self.divergence(experience.rollout, range(few))
        self.optimiser.zero_grad(set_to_none=True)
        results = [self._backward(experience, batch, totals) for batch in self.batches(experience)]
        norm, applied = self._apply() if results else (0.0, False)
        means = {name: _mean(r.metrics[name] for r in results) for name in CLIP_METRICS}
        figures = {name: float(v.mean()) for name, v in first.per_prompt().items()}
        return StepMetrics(
            **figures,
            **means,
            kl=kl,
            rewards=first.reward_means(),
            reward_spreads=first.reward_spreads(),
            loss=float(sum(r.loss.item() for r in results)),
            grad_norm=norm,
            length=float(experience.rollout.lengths().double().mean()),
            applied=applied,
            seconds=time.monotonic() - started,
        )

    def collect(self, chosen: Sequence[int], *, isolated: bool = False) -> Experience:
        """Sample and judge the prompts with these numbers.

        Parameters
        ----------
        chosen:
            Numbers of prompts.
        isolated:
            Judge every prompt as if it were alone, so that no reward function and no advantage can
            let one prompt's completions count for another's. Prompt-level privacy rests on that.
        """
        rows = [self.rows[i] for i in chosen]
        rollout = self.rollout([self.encoded[i] for i in chosen], self.sampling_plan())
        ids, group = completion_ids(rollout), rollout.group_size
        texts = self.decode(rollout)
        size = 1 if isolated else len(rows)
        parts = [
            judge(self.reward, rows[i : i + size], texts[span], ids[span], group)
            for i in range(0, len(rows), size)
            for span in [slice(i * group, (i + size) * group)]
        ]
        rewards = join_results(parts)
        return Experience(rollout, rewards, self._advantages(rollout, rewards, size))

    def _advantages(self, rollout: Rollout, rewards: RewardResult, prompts_each: int) -> Tensor:
        """Advantages of every completion, ``prompts_each`` prompts at a time; float32."""
        settings, lengths = self.settings, rollout.lengths().double().numpy()
        shaped = rewards.total
        if settings.overlong_share:
            limit = settings.max_completion_length
            shaped = shaped + soft_overlong(lengths, limit, settings.overlong_share * limit)
        objectives = rewards.objectives().T
        at_once = prompts_each * rollout.group_size
        parts = [
            compute_advantages(
                settings.advantage,
                shaped[start : start + at_once],
                rollout.group_size,
                lengths=lengths[start : start + at_once],
                objectives=objectives[:, start : start + at_once],
                weights=self.reward.weights,
            )
            for start in range(0, len(shaped), at_once)
        ]
        return torch.from_numpy(np.concatenate(parts)).float()

    def _refilled(self, experience: Experience) -> Experience:
        """Replace groups without signal by fresh prompts, a bounded number of times (DAPO's dynamic
        sampling, arXiv 2503.14476).
        """
        for _ in range(self.settings.max_resamples):
            silent = experience.silent_groups()
            if not silent:
                break
            fresh = self.collect(self.next_prompts(len(silent)))
            rollout, rewards = replace_groups(experience, silent, fresh)
            advantages = self._advantages(rollout, rewards, experience.prompts)
            experience = Experience(rollout, rewards, advantages)
        return experience

    def reward_of(self, rollout: Rollout, rows: Sequence[PromptRow]) -> RewardResult:
        """Judge every completion of a rollout over these rows.

        Raises
        ------
        RewardError
            If a reward function fails.
        """
        ids = completion_ids(rollout)
        return judge(self.reward, rows, self.decode(rollout), ids, rollout.group_size)

    def rollout(self, encoded: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
        """Sample with the adapter merged into a copy of the weights."""
        with self.adapter.merged():
            return sample(self.adapter.causal, encoded, plan, self.generator)

    def decode(self, rollout: Rollout) -> list[str]:
        """Text of every completion, without special tokens."""
        ids = completion_ids(rollout)
        return list(self.adapter.base.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def batches(
        self, experience: Experience, *, one_prompt_each: bool = False
    ) -> Iterator[PackedBatch]:
        """Pack what can teach; groups without signal and truncated completions are left out."""
        keep = experience.useful(
            with_kl=self.settings.kl_weight > 0, with_truncated=self._learns_from_truncated
        )
        budget = 1 if one_prompt_each else self.settings.tokens_per_batch
        return pack(experience.rollout, keep, tokens_per_batch=budget)

    def loss(
        self,
        experience: Experience,
        batch: PackedBatch,
        totals: BatchTotals,
        ref_logps: Tensor | None = None,
    ) -> LossResult:
        """Loss of one packed batch under the adapter as it stands."""
        settings, device = self.settings, self.adapter.base.device
        return compute_loss(
            settings.loss,
            self.logps(experience.rollout, batch),
            experience.rollout.logps[batch.completions].to(device),
            experience.advantages[batch.completions].to(device),
            experience.rollout.mask[batch.completions].to(device),
            ref_logps=ref_logps,
            clip_low=settings.clip_low or None,
            clip_high=settings.clip_high or None,
            kl=settings.kl,
            kl_weight=settings.kl_weight,
            totals=totals,
        )

    def logps(self, rollout: Rollout, batch: PackedBatch) -> Tensor:
        """Log-probabilities of packed completions under the adapter as it stands, shape (N, T)."""
        width = rollout.tokens.shape[1]
        return completion_logps(self.adapter.causal, batch, width, self.settings.temperature)

    def divergence(self, rollout: Rollout, completions: Sequence[int]) -> float:
        """Mean k3 divergence per token of the policy from the reference, on these completions.

        The sampler's log-probabilities are the policy's own, so only the reference is asked.
        """
        total, tokens = 0.0, 0
        for batch in pack(rollout, completions, tokens_per_batch=self.settings.tokens_per_batch):
            mask = rollout.mask[batch.completions]
            reference = self._reference_logps(rollout, batch).cpu()
            total += float((k3(rollout.logps[batch.completions], reference) * mask).sum())
            tokens += int(mask.sum())
        # Never negative but for rounding.
        return max(0.0, total / max(tokens, 1))

    def totals(self, experience: Experience) -> BatchTotals:
        """Divisors of the whole optimiser batch, silent groups included."""
        counted = experience.rollout.mask[experience.rollout.ended | self._learns_from_truncated]
        return BatchTotals(
            len(experience.advantages), int(counted.sum()), self.settings.max_completion_length
        )

    def sampling_plan(
        self, *, group_size: int | None = None, temperature: float | None = None
    ) -> SamplingPlan:
        """The training's sampling plan, or a variation of it for evaluation."""
        base = self.adapter.base
        return SamplingPlan(
            group_size or self.settings.group_size,
            self.settings.max_completion_length,
            self.settings.temperature if temperature is None else temperature,
            base.eos_ids,
            int(base.tokenizer.pad_token_id),
        )

    def next_prompts(self, count: int | None = None) -> list[int]:
        """Numbers of the next prompts, by default of a step: a fresh shuffle each time all have
        been used.
        """
        wanted = min(count or self.settings.prompts_per_step, len(self.rows))
        if len(self._order) < wanted:
            self._order = self._rng.permutation(len(self.rows)).tolist()
        chosen, self._order = self._order[:wanted], self._order[wanted:]
        return chosen

    def save(self, folder: str | Path) -> None:
        """Write the adapter in PEFT's own format."""
        self.adapter.save(Path(folder))

    @property
    def _learns_from_truncated(self) -> bool:
        """Punishing what runs long means to learn from it."""
        return self.settings.overlong_share > 0

    def _backward(
        self, experience: Experience, batch: PackedBatch, totals: BatchTotals
    ) -> LossResult:
        """Add one batch's gradient; its loss comes back without the graph."""
        # The reference goes first: visiting its values would invalidate a graph that exists
        # already.
        penalised = self.settings.kl_weight > 0
        reference = self._reference_logps(experience.rollout, batch) if penalised else None
        result = self.loss(experience, batch, totals, reference)
        result.loss.backward()
        return LossResult(result.loss.detach(), result.metrics)

    @torch.no_grad()
    def _reference_logps(self, rollout: Rollout, batch: PackedBatch) -> Tensor:
        """At the round's first step policy and reference are one, so the sampler's values serve."""
        if np.array_equal(self.reference, self.adapter.vector()):
            return rollout.logps[batch.completions].to(self.adapter.base.device)
        with self.adapter.at(self.reference):
            return self.logps(rollout, batch)

    def _apply(self) -> tuple[float, bool]:
        """Clip and step; a gradient that is not finite is thrown away."""
        parameters = list(self.adapter.trainable.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))
        if not np.isfinite(norm):
            return norm, False
        self.optimiser.step()
        return norm, True


def _mean(values: Iterable[float]) -> float:
    """Mean, or 0 of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _adapter(model: str | BaseModel | Adapter, settings: AdapterSettings, seed: int) -> Adapter:
    if isinstance(model, Adapter):
        return model
    base = load_base(ModelSettings(name=model)) if isinstance(model, str) else model
    return Adapter(base, settings, seed)


def _mixture(reward_funcs: RewardArgument) -> RewardMixture:
    if isinstance(reward_funcs, RewardMixture):
        return reward_funcs
    several = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
    return RewardMixture(
        [(getattr(f, "__name__", f"reward_{i}"), f, 1.0) for i, f in enumerate(several)]
    )
