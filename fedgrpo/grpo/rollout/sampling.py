"""Rollout: sample groups of completions with our own decode loop.

The prompt is prefilled once and its cache repeated for the group, the sampler's log-probabilities
are kept, and finished rows leave the batch. Hugging Face's ``generate`` prefills every copy, throws
the log-probabilities away and decodes finished rows until the last one ends (measured:
docs/lab-log.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.rollout.choice.drawing import uniforms
from fedgrpo.grpo.rollout.choice.stops import Stops
from fedgrpo.grpo.rollout.choice.warping import PLAIN, Warping
from fedgrpo.grpo.rollout.decoding import Decoding, decode
from fedgrpo.grpo.rollout.memory import budget_bytes, fitting_rows, is_out_of_memory
from fedgrpo.grpo.rollout.replay import keep_nothing
from fedgrpo.grpo.rollout.streams import Prefilled
from fedgrpo.settings import GRPOSettings


@dataclass(frozen=True)
class SamplingPlan:
    """How to sample.

    Attributes
    ----------
    group_size:
        Completions a prompt, G.
    max_tokens:
        Longest completion, T, in tokens.
    temperature:
        Softmax temperature; 0 is greedy.
    eos_ids, pad_id:
        Tokens that end a completion, and the filler after the end.
    memory_gb:
        What the rows may take, in GiB: as many prompts as fit are decoded at once. 0 stands for a
        share of what is free.
    warping:
        What is kept of each token's distribution.
    stops:
        Texts that end a completion; they stay in it.
    """

    group_size: int
    max_tokens: int
    temperature: float
    eos_ids: tuple[int, ...]
    pad_id: int
    memory_gb: float = 0.0
    warping: Warping = PLAIN
    stops: Stops | None = None


def knobs(grpo: GRPOSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[Warping, Stops | None]:
    """What is kept of distributions, and the texts that stop, by the settings."""
    texts = grpo.stop_texts()
    return Warping.of(grpo), Stops(tokenizer, texts) if texts else None


@dataclass(frozen=True)
class Rollout:
    """Completions of P prompts, G each; row ``p * G + g`` is completion g of prompt p.

    Attributes
    ----------
    prompts:
        P token lists.
    tokens:
        int64, shape (P*G, T); ``pad_id`` after the end.
    logps:
        float32, shape (P*G, T): the sampler's log-probability of each token; 0 after the end.
    mask:
        bool, shape (P*G, T): true up to and including the end.
    ended:
        bool, shape (P*G,): false where the length limit cut the completion.
    """

    prompts: tuple[tuple[int, ...], ...]
    tokens: Tensor
    logps: Tensor
    mask: Tensor
    ended: Tensor
    group_size: int

    def lengths(self) -> Tensor:
        """Tokens a completion, int64, shape (P*G,)."""
        return self.mask.sum(1)


def completion_ids(rollout: Rollout) -> list[list[int]]:
    """Token ids of every completion, end token included, without the filler."""
    lengths = rollout.lengths().tolist()
    return [row[:n] for row, n in zip(rollout.tokens.tolist(), lengths, strict=True)]


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    plan: SamplingPlan,
    generator: torch.Generator,
) -> Rollout:
    """Sample ``plan.group_size`` completions of every prompt.

    Prompts of similar length are decoded together; the result is in the order given.
    """
    return sample_mixture(model, [prompts], [1.0], plan, generator)


@torch.no_grad()
def sample_mixture(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[Sequence[int]]],
    exponents: Sequence[float],
    plan: SamplingPlan,
    generator: torch.Generator,
) -> Rollout:
    """Sample every token from the normalised product of its probabilities behind several contexts.

    A row's random numbers are drawn beforehand: how rows are cut into batches, which depends on the
    memory that is free, does not decide what is drawn.

    Parameters
    ----------
    contexts:
        One list of P prompts for each context; the first is the prompts' own.
    exponents:
        Power of each context's probabilities. A context of power 0 is never looked at.

    Returns
    -------
    Rollout
        Over the first context's prompts; ``logps`` are the product's.

    Raises
    ------
    ModelError
        If memory runs out twice.
    """
    uniform = uniforms((len(contexts[0]) * plan.group_size, plan.max_tokens), generator)
    used = [(c, power) for c, power in zip(contexts, exponents, strict=True) if power]
    work = _Work(model, [c for c, _ in used], [power for _, power in used], plan, uniform)
    tokens = torch.full(uniform.shape, plan.pad_id, dtype=torch.long)
    logps = torch.zeros(uniform.shape)
    left = sorted(range(len(contexts[0])), key=lambda i: len(contexts[0][i]))
    at_once, is_halved = work.prompts_at_once(), False
    while left:
        chosen = left[:at_once]
        try:
            where = work.rows(chosen)
            tokens[where], logps[where] = work.decoded(chosen, where)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            at_once, is_halved = _halved(model, len(chosen), again=is_halved), True
        else:
            left = left[len(chosen) :]
    return as_rollout(contexts[0], tokens, logps, plan)


def as_rollout(
    prompts: Sequence[Sequence[int]], tokens: Tensor, logps: Tensor, plan: SamplingPlan
) -> Rollout:
    """A rollout of tokens, int64, and log-probabilities, float32, of shape (P*G, T) on the CPU;
    whatever stands behind an end token or a text that stops is put away.
    """
    is_end = torch.isin(tokens, torch.tensor(plan.eos_ids))
    mask = is_end.cumsum(1) - is_end.long() == 0
    if plan.stops:
        is_end = is_end | plan.stops.marks(tokens, mask.sum(1))
        mask = is_end.cumsum(1) - is_end.long() == 0
    return Rollout(
        tuple(map(tuple, prompts)),
        tokens.masked_fill(~mask, plan.pad_id),
        logps.masked_fill(~mask, 0.0),
        mask,
        is_end.any(1),
        plan.group_size,
    )


@dataclass(frozen=True)
class _Work:
    """All that is to be sampled: see :func:`sample_mixture`."""

    model: PreTrainedModel
    contexts: Sequence[Sequence[Sequence[int]]]
    powers: Sequence[float]
    plan: SamplingPlan
    uniform: Tensor

    def prompts_at_once(self) -> int:
        """Prompts whose rows the budget takes, at least one."""
        longest = max(len(prompt) for context in self.contexts for prompt in context)
        columns = len(self.contexts) * (longest + self.plan.max_tokens)
        budget = budget_bytes(self.model.device, self.plan.memory_gb)
        return max(1, fitting_rows(self.model, columns, budget) // self.plan.group_size)

    def rows(self, prompts: Sequence[int]) -> Tensor:
        """Rows of these prompts, int64, shape (n,)."""
        group = self.plan.group_size
        return (torch.tensor(prompts)[:, None] * group + torch.arange(group)).flatten()

    def decoded(self, prompts: Sequence[int], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities of these rows, shape (n, T), on the CPU."""
        plan, model = self.plan, self.model
        seen = [
            Prefilled(model, [context[i] for i in prompts], plan.pad_id)
            for context in self.contexts
        ]
        decoding = Decoding(plan.max_tokens, plan.temperature, plan.eos_ids, plan.warping)
        uniform = self.uniform[rows.to(self.uniform.device)]
        found = decode(model, seen, self.powers, plan.group_size, uniform, decoding, plan.stops)
        return found[0].cpu(), found[1].cpu()


def _halved(model: PreTrainedModel, prompts: int, *, again: bool) -> int:
    """Half as many prompts at once, said aloud; once."""
    keep_nothing(model)
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    if again or prompts < 2:
        raise ModelError(
            f"memory ran out while completions of {prompts} prompts were sampled",
            cure="lower grpo.group_size, grpo.max_completion_length or grpo.memory_gb",
        ) from None
    warnings.warn(
        f"memory ran out while completions of {prompts} prompts were sampled: going on with "
        f"{prompts // 2} at once. Lower grpo.memory_gb to begin so.",
        ResourceWarning,
        stacklevel=2,
    )
    return prompts // 2
