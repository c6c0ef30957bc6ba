"""One part of each kind, as you would write your own. Settings name them with their file.

    fedgrpo simulate examples/my_parts.toml

Keywords with a default, or behind the ``*``, are options: ``leaky_clip(width=0.3)``. A part that
says nothing of itself is taken for the worst: a loss or advantage for one that lets prompts weigh
on each other, a rule for one of unknown sensitivity. A metric that says nothing is held to 0 to 1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedgrpo.attacks import Knowledge
from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation.server.optimisers import OptimiserState
from fedgrpo.grpo import Outcomes, Preset, Surrogate, TokenBatch, declare_advantage, declare_loss
from fedgrpo.grpo.learning.losses.aggregation import token_mean
from fedgrpo.grpo.methods.credit.base import GroupCredit
from fedgrpo.grpo.methods.guidance.base import PlainPrompt
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan, as_rollout
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards import declare_metric
from fedgrpo.robust import declare_rule
from fedgrpo.settings import ServerSettings

Floats = NDArray[np.float64]


# On the clients. A site's policy must name these: code = [...], and rewards = [...] for the reward;
# the metric in metrics = [...] too, since its figure leaves.


@declare_advantage(batch_wide=False)
def best_of_group(outcomes: Outcomes, *, sharpness: float = 1.0) -> Floats:
    """Mass on the best of each group, less its mean: a soft maximum."""
    odds = np.exp(sharpness * (outcomes.rewards - outcomes.rewards.max(axis=1, keepdims=True)))
    share = odds / odds.sum(axis=1, keepdims=True)
    return np.asarray(share - 1 / share.shape[1])


@declare_loss(aggregate=token_mean, batch_wide=False)
def leaky_clip(batch: TokenBatch, *, width: float = 0.2, leak: float = 0.1) -> Surrogate:
    """-r A within the clip, and a share ``leak`` of its slope beyond."""
    cut = batch.ratio.clamp(1 - width, 1 + width)
    ratio = cut + leak * (batch.ratio - cut)
    return Surrogate(-ratio * batch.advantages, cut > batch.ratio, cut < batch.ratio)


class DiscountedCredit(GroupCredit):
    """Later tokens of a completion get less of its advantage (``grpo.credit``)."""

    def __init__(self, collector: object, *, discount: float = 0.9) -> None:
        self.discount = discount

    def assign(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Advantages of shape (N, T), zero where there is no token."""
        mask = experience.rollout.mask
        fades = self.discount ** torch.arange(mask.shape[1]) * mask
        return replace(experience, advantages=experience.advantages[:, None] * fades)


class CountedSamples(PlainPrompt):
    """Reports how many completions were sampled, and adds none (``grpo.guidance``)."""

    def join(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """The completions, with one figure more."""
        sampled = float(len(experience.advantages))
        return replace(experience, figures={**experience.figures, "sampled": sampled})


class ByGenerate:
    """Samples by Hugging Face's ``generate`` (``grpo.engine``), from torch's own random numbers."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def sample(self, prompts: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
        """Completions with the log-probabilities of the distribution that was drawn from."""
        rows = [prompt for prompt in prompts for _ in range(plan.group_size)]
        width, device = max(map(len, rows)), self.adapter.base.device
        filled = [[plan.pad_id] * (width - len(row)) + list(row) for row in rows]
        real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        how = {"temperature": plan.temperature, "top_k": 0} if plan.temperature else {}
        with self.adapter.merged():
            found = self.adapter.causal.generate(
                torch.tensor(filled, device=device),
                attention_mask=torch.tensor(real, device=device),
                do_sample=plan.temperature > 0,
                **how,
                max_new_tokens=plan.max_tokens,
                eos_token_id=list(plan.eos_ids),
                pad_token_id=plan.pad_id,
                return_dict_in_generate=True,
                output_logits=True,
            )
        chosen = found.sequences[:, width:]
        logps = torch.stack(found.logits, 1).float().div(plan.temperature or 1.0).log_softmax(-1)
        logps = logps.gather(2, chosen[..., None])[..., 0]
        room = (0, plan.max_tokens - chosen.shape[1])
        tokens, logps = (torch.nn.functional.pad(part.cpu(), room) for part in (chosen, logps))
        return as_rollout(prompts, tokens, logps, plan)


@dataclass
class Short:
    """1 for completions of at most ``longest`` characters: a reward that is made of its options."""

    longest: int = 3

    def __call__(self, completions: Sequence[str], **_: object) -> list[float]:
        """Judge completions, in TRL's calling convention."""
        return [float(len(text) <= self.longest) for text in completions]


@declare_metric(low=0.0, high=10.0)
def characters(completions: Sequence[str], *, most: int = 10, **_: object) -> list[float]:
    """A metric: how long completions are, held to 0 to 10 whatever this returns."""
    return [float(min(len(text), most)) for text in completions]


def count_letters(rng: random.Random, *, letters: str = "ab", longest: int = 5) -> tuple[str, str]:
    """A task: count how often the first letter occurs."""
    word = "".join(rng.choices(letters, k=rng.randint(1, longest)))
    return f"count {letters[0]} in {word}=", str(word.count(letters[0]))


# On the server.


@declare_rule(robust=True)
def multi_krum(bucket_means: Floats, trim: int, *, keep: int = 1) -> Floats:
    """Mean of the ``keep`` vectors with the nearest neighbours (arXiv 1703.02757)."""
    distances = ((bucket_means[:, None] - bucket_means[None]) ** 2).sum(axis=2)
    near = max(len(bucket_means) - trim - 2, 1)
    scores = np.sort(distances, axis=1)[:, 1 : near + 1].sum(axis=1)
    return np.asarray(bucket_means[np.argsort(scores)[:keep]].mean(axis=0))


def sign_step(
    settings: ServerSettings,
    state: OptimiserState,
    delta: Floats,
    rate: float,
    *,
    decay: float = 0.9,
) -> tuple[OptimiserState, Floats]:
    """An optimiser: steps of one size along the signs of a running mean."""
    before = state.first if state.first.size else np.zeros_like(delta)
    first = decay * before + (1 - decay) * delta
    return OptimiserState(state.steps + 1, first), rate * np.sign(first)


# In simulations.


def little_is_enough(vector: Floats, knowledge: Knowledge, *, z: float = 1.0) -> Floats:
    """An attack: colluders hide z standard deviations from their own mean (arXiv 1902.06156)."""
    return np.asarray(knowledge.own.mean(axis=0) - z * knowledge.own.std(axis=0))


# In scenarios, which fill it in: no node ever reads it.


def mine() -> Preset:
    """A preset: the advantage and the loss above, with options."""
    return Preset(
        "Mine",
        "",
        "examples/my_parts.py:best_of_group(sharpness=2.0)",
        "examples/my_parts.py:leaky_clip(width=0.3)",
    )
