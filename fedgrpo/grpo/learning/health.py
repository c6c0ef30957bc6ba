"""Signs that a local run learns nothing or is about to collapse, in plain words and with a cure.

The same fault gives the same words, so it is easily told once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fedgrpo.ground.signs import MAX_TRUNCATED, MAX_ZERO_SIGNAL, no_signal, truncated
from fedgrpo.grpo.learning.metrics import BatchFigures, StepMetrics
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.base import BaseModel
from fedgrpo.settings import GRPOSettings

WINDOW = 10
"""Steps that a sign must hold for."""
HISTORY = 200
"""Steps that are remembered: a collapse is seen against the best of them."""

MAX_MISMATCH = 1e-2
"""Nats a token; below 1e-3 is healthy (docs/algorithms.md)."""

SENSIBLE_RATES = {"lora": (1e-6, 1e-2), "ffa_lora": (1e-6, 2e-2), "tiny_lora": (1e-5, 1e-1)}
"""Learning rates outside of which an adapter of this kind has not been seen to learn: a LoRA takes
about ten times the rate of full fine-tuning.
"""

FALLEN = 0.2
"""Share of the best reward's height over the worst by which a reward has fallen for good."""
ENTROPY_BAND = (0.1, 3.0)
"""Entropy over that at the best reward: outside, the policy has hardened or dissolved."""
KL_BAND = 5.0
"""Divergence over that at the best reward."""
MIN_KL = 0.1
"""Nats a token: a smaller divergence is no cause for worry, whatever it was before."""

END_SHARE = 0.5
"""Share of truncated completions that hold a foreign end token before it is named."""


class TrainingWarning(UserWarning):
    """What keeps a trainer from learning, with its cure. Holds no prompt and no completion."""


def symptoms(history: Sequence[StepMetrics]) -> list[str]:
    """Everything that is wrong now: one sentence with the fault and one with the cure for each.

    Parameters
    ----------
    history:
        Figures of the steps so far, oldest first. Fewer than ``WINDOW`` say nothing.
    """
    steps = list(history)
    if len(steps) < WINDOW:
        return []
    recent = steps[-WINDOW:]
    against = cancelled(recent)
    silent = "" if against else _no_signal(recent)
    found = [_truncated(recent), silent, _mismatch(recent), _collapse(steps)]
    return [sentence for sentence in found if sentence] + against + constant_rewards(recent)


def glance(batch: BatchFigures) -> list[str]:
    """What a single batch of completions tells already: all cut, all silent, a dead reward."""
    against = cancelled([batch])
    found = [_truncated([batch]), "" if against else _no_signal([batch])]
    return [sentence for sentence in found if sentence] + against + constant_rewards([batch])


def constant_rewards(recent: Sequence[BatchFigures]) -> list[str]:
    """Name every reward function that tells no completion from another in these steps."""
    dead = [
        name
        for name in recent[-1].rewards
        if all(step.reward_spreads.get(name, 0.0) == 0 for step in recent)
    ]
    return [_dead_reward(name, recent) for name in dead]


def cancelled(recent: Sequence[BatchFigures]) -> list[str]:
    """Name rewards that vary while their weighted sum does not."""
    lively = [
        name
        for name in recent[-1].rewards
        if all(step.reward_spreads.get(name, 0.0) > 0 for step in recent)
    ]
    silent = min(step.zero_signal for step in recent) > MAX_ZERO_SIGNAL
    if not silent or len(lively) < 2:
        return []
    return [
        f"Rewards {', '.join(map(repr, lively))} vary within groups, and their weighted sum does "
        f"not{_during(recent, ', for')}: they cancel each other, so there is nothing to learn "
        "from. Change reward.weights, or leave one out."
    ]


def step_size_advice(kind: str, settings: GRPOSettings) -> list[str]:
    """Say that AdamW's rate is far off for an adapter of this kind, if it is. A gradient's own size
    decides what rate suits SGD.
    """
    rate, (low, high) = settings.learning_rate, SENSIBLE_RATES[kind]
    if settings.optimiser != "adamw" or low <= rate <= high:
        return []
    trouble = "hardly move" if rate < low else "break"
    return [
        f"grpo.learning_rate = {rate:g} is far off for an adapter of kind {kind!r}: it will "
        f"{trouble} it. Choose one between {low:g} and {high:g}; 1e-5 to 1e-4 suits models of a "
        "billion parameters and more, 1e-3 the tiny one."
    ]


def missed_ends(rollout: Rollout, base: BaseModel) -> list[str]:
    """Name special tokens that truncated completions hold and that do not end them.

    Models disagree with themselves about their end token; a missed one makes every completion run
    to the limit.
    """
    cut = (~rollout.ended).nonzero()[:, 0]
    if not len(cut):
        return []
    tokenizer = base.tokenizer
    special = set(tokenizer.all_special_ids) - set(base.eos_ids) - {tokenizer.pad_token_id}
    shares = {
        token: float((rollout.tokens[cut] == token).any(1).float().mean()) for token in special
    }
    return [
        f"More than {END_SHARE:.0%} of the truncated completions hold the special token "
        f"{tokenizer.convert_ids_to_tokens(token)!r} (id {token}), which does not count as an end "
        "here. If the model means it as one, add it to eos_token_id in its "
        "generation_config.json."
        for token, share in sorted(shares.items())
        if share > END_SHARE
    ]


def _dead_reward(name: str, steps: Sequence[BatchFigures]) -> str:
    if all(math.isnan(step.rewards.get(name, math.nan)) for step in steps):
        return (
            f"Reward {name!r} applied to no completion{_during(steps, ' in')}. "
            "Check that the prompts have the columns that it reads, or leave it out."
        )
    return (
        f"Reward {name!r} never varied within a group{_during(steps, ' in')}, so it teaches "
        "nothing. Use a finer reward, easier or harder prompts, or a larger grpo.group_size, or "
        "leave it out."
    )


def _during(steps: Sequence[BatchFigures], preposition: str) -> str:
    """For how long; of a single batch nothing need be said."""
    return f"{preposition} {len(steps)} steps" if len(steps) > 1 else ""


def _truncated(recent: Sequence[BatchFigures]) -> str:
    if min(step.truncated for step in recent) <= MAX_TRUNCATED:
        return ""
    return truncated(f"More than {MAX_TRUNCATED:.0%}", _during(recent, " for"))


def _no_signal(recent: Sequence[BatchFigures]) -> str:
    if min(step.zero_signal for step in recent) <= MAX_ZERO_SIGNAL:
        return ""
    return no_signal(f"more than {MAX_ZERO_SIGNAL:.0%}", _during(recent, ", for"))


def _mismatch(recent: Sequence[StepMetrics]) -> str:
    """Only steps on fresh completions count: on stale ones the policy has moved."""
    fresh = [step.mismatch for step in recent if step.tokens_per_second > 0]
    if not fresh or sum(fresh) / len(fresh) <= MAX_MISMATCH:
        return ""
    return (
        f"Sampler and update disagree on the probability of tokens by more than {MAX_MISMATCH:g} "
        "nats (k3), so the update follows another policy than the one that sampled. Set "
        "model.dtype = 'float32', or report it with the model's name."
    )


def _collapse(steps: Sequence[StepMetrics]) -> str:
    """The reward has fallen from its best window, and entropy or divergence left its band."""
    figures = np.array([(step.reward, step.entropy, step.kl) for step in steps])
    windows = sliding_window_view(figures, WINDOW, axis=0).mean(axis=-1)
    rewards = windows[:, 0]
    best = int(rewards.argmax())
    height, fall = rewards[best] - rewards.min(), rewards[best] - rewards[-1]
    if height <= 0 or fall <= FALLEN * height or best >= len(windows) - WINDOW:
        return ""
    (_, best_entropy, best_kl), (_, entropy, kl) = windows[best], windows[-1]
    low, high = (bound * best_entropy for bound in ENTROPY_BAND)
    if entropy < low:
        sign = "the policy's entropy has all but gone"
        cure = "Set grpo.entropy_weight, raise grpo.clip_high or grpo.temperature"
    elif entropy > high:
        sign = "the policy's entropy has multiplied"
        cure = "Lower grpo.learning_rate or grpo.entropy_weight"
    elif kl > max(MIN_KL, KL_BAND * best_kl):
        sign = "it has moved far from its reference"
        cure = "Lower grpo.learning_rate or set grpo.kl_weight"
    else:
        return ""
    return (
        f"Reward falls and {sign}: the run is collapsing. {cure}, and go back to the best adapter, "
        "which is kept."
    )
