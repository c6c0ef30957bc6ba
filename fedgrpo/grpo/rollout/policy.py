"""The model with its adapter: it samples, scores, and remembers where it started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedgrpo.grpo.rollout.divergence import k3
from fedgrpo.grpo.rollout.engines import ENGINES, OwnEngine, checked
from fedgrpo.grpo.rollout.packing import GPU_COLUMNS, MAX_ROW_TOKENS, PackedBatch, pack
from fedgrpo.grpo.rollout.sampling import (
    Rollout,
    SamplingPlan,
    completion_ids,
    knobs,
    sample_mixture,
)
from fedgrpo.grpo.rollout.scoring import (
    completion_logps,
    completion_scores,
    predicting_states,
    warped_over,
)
from fedgrpo.model.kernels.attention import takes_any_mask
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import GRPOSettings


class Sampled(NamedTuple):
    """An amount of text."""

    completions: int
    tokens: int

    def __add__(self, other: Sampled) -> Sampled:  # type: ignore[override]
        return Sampled(self.completions + other.completions, self.tokens + other.tokens)

    def __sub__(self, other: Sampled) -> Sampled:
        return Sampled(self.completions - other.completions, self.tokens - other.tokens)


class Policy:
    """A language model under its adapter as it stands, beside the reference that it started from.

    Attributes
    ----------
    generator:
        Randomness of the completions, on the model's device.
    reference:
        The adapter's values at the start of the round, float32, shape (d,).
    sampled:
        Completions and tokens sampled so far.
    """

    def __init__(self, adapter: Adapter, settings: GRPOSettings) -> None:
        self.adapter = adapter
        self.settings = settings
        self.generator = torch.Generator(adapter.base.device)
        self.engine = ENGINES[settings.engine](adapter)
        if isinstance(self.engine, OwnEngine):
            self.engine.generator = self.generator
        self.warping, self.stops = knobs(settings, adapter.base.tokenizer)
        self.reference = adapter.vector()
        self.sampled = Sampled(0, 0)
        if adapter.base.device.type == "cuda":
            # It plans anew for every length of a key: two milliseconds a call.
            torch.backends.cuda.enable_cudnn_sdp(False)

    def start_round(self, seed: int) -> None:
        """Take the adapter as it stands as reference, with fresh random numbers."""
        self.generator.manual_seed(seed)
        self.reference = self.adapter.vector()

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
            self.settings.memory_gb,
            self.warping,
            self.stops,
        )

    def rollout(self, encoded: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
        """Sample with the adapter as it stands, by the engine that the settings name."""
        return self._counted(checked(self.engine.sample(encoded, plan), encoded, plan))

    def mixed_rollout(
        self,
        contexts: Sequence[Sequence[tuple[int, ...]]],
        exponents: Sequence[float],
        plan: SamplingPlan,
    ) -> Rollout:
        """Sample from the product of several contexts, whatever engine there is: see
        :func:`sample_mixture`.
        """
        with self.adapter.merged():
            rollout = sample_mixture(self.adapter.causal, contexts, exponents, plan, self.generator)
        return self._counted(rollout)

    def _counted(self, rollout: Rollout) -> Rollout:
        self.sampled += Sampled(len(rollout.mask), int(rollout.mask.sum()))
        return rollout

    def decode(self, rollout: Rollout) -> list[str]:
        """Text of every completion, without special tokens."""
        ids = completion_ids(rollout)
        return list(self.adapter.base.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def pack(
        self, rollout: Rollout, keep: Sequence[int], tokens_per_batch: int | None = None
    ) -> Iterator[PackedBatch]:
        """Pack these completions; one a row where the model's attention takes no ready mask."""
        budget = tokens_per_batch or self.settings.tokens_per_batch
        longest = MAX_ROW_TOKENS if takes_any_mask(self.adapter.causal) else 1
        columns = GPU_COLUMNS if self.adapter.base.device.type == "cuda" else 1
        return pack(rollout, keep, tokens_per_batch=budget, max_row_tokens=longest, columns=columns)

    def logps(self, rollout: Rollout, batch: PackedBatch) -> Tensor:
        """Log-probabilities of packed completions under the adapter as it stands, shape (N, T)."""
        width = rollout.tokens.shape[1]
        given = (
            width,
            self.settings.temperature,
            warped_over(
                self.warping, rollout.prompts, rollout.tokens, batch, self.adapter.base.device
            ),
        )
        return completion_logps(self.adapter.causal, batch, *given)

    def logps_and_entropy(self, rollout: Rollout, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Also the entropy at each token in nats, for a bonus; both of shape (N, T)."""
        width, temperature = rollout.tokens.shape[1], self.settings.temperature
        given = (
            width,
            temperature,
            warped_over(
                self.warping, rollout.prompts, rollout.tokens, batch, self.adapter.base.device
            ),
        )
        return completion_scores(self.adapter.causal, batch, *given)

    @torch.no_grad()
    def hidden_states(self, rollout: Rollout) -> Tensor:
        """Last hidden state before each token of all completions, float32, shape (K, H), in the
        order of the rollout's mask.
        """
        causal, completions = self.adapter.causal, range(len(rollout.mask))
        packed = list(self.pack(rollout, completions))
        states = torch.cat([predicting_states(causal, batch).float() for batch in packed])
        number = rollout.mask.flatten().cumsum(0).reshape(rollout.mask.shape) - 1
        order = torch.cat(
            [number[b.completions[b.token_completion], b.token_index] for b in packed]
        )
        return torch.empty_like(states).index_copy_(0, order.to(states.device), states)

    @torch.no_grad()
    def reference_logps(self, rollout: Rollout, batch: PackedBatch) -> Tensor:
        """Log-probabilities of packed completions under the reference, shape (N, T)."""
        if np.array_equal(self.reference, self.adapter.vector()):
            # At the round's first step policy and reference are one: the sampler's values serve.
            return rollout.logps[batch.completions].to(self.adapter.base.device)
        with self.adapter.at(self.reference):
            return self.logps(rollout, batch)

    def divergence(self, rollout: Rollout, completions: Sequence[int]) -> float:
        """Mean k3 divergence per token of the policy from the reference, on these completions, just
        sampled.

        The sampler's log-probabilities are the policy's own, so only the reference is asked.
        """
        total, tokens = 0.0, 0
        for batch in self.pack(rollout, completions):
            mask = rollout.mask[batch.completions]
            reference = self.reference_logps(rollout, batch).cpu()
            total += float((k3(rollout.logps[batch.completions], reference) * mask).sum())
            tokens += int(mask.sum())
        # Never negative but for rounding.
        return max(0.0, total / max(tokens, 1))
