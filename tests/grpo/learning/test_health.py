"""Runs that cannot learn say so, and healthy ones stay silent."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fedgrpo.grpo.learning.health import (
    WINDOW,
    constant_rewards,
    glance,
    missed_ends,
    step_size_advice,
    symptoms,
)
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.rewards import RewardMixture, exact_match
from fedgrpo.settings import GRPOSettings
from tests.models import graded, tiny_base, tiny_trainer

HEALTHY = StepMetrics(
    reward=0.5,
    rewards={"good": 0.5},
    reward_spreads={"good": 0.3},
    zero_signal=0.2,
    truncated=0.1,
    advantage_spread=1.0,
    entropy=1.0,
    kl=0.05,
    length=5.0,
    figures={},
    completions=8,
    tokens=40,
    loss=0.0,
    grad_norm=1.0,
    clip_low=0.0,
    clip_high=0.0,
    mismatch=1e-6,
    applied=True,
    step=1,
    seconds=1.0,
    tokens_per_second=100.0,
)


def rewarded(name: str, means: list[float], spreads: list[float]) -> list[StepMetrics]:
    return [
        replace(HEALTHY, rewards={name: mean, "good": 1.0}, reward_spreads={name: s, "good": 1.0})
        for mean, s in zip(means, spreads, strict=True)
    ]


def test_a_reward_that_never_varies_is_named_with_a_cure() -> None:
    (sentence,) = constant_rewards(rewarded("mine", [1.0] * 4, [0.0] * 4))
    assert "'mine' never varied within a group in 4 steps" in sentence
    assert "group_size" in sentence


def test_one_that_differs_between_prompts_only_teaches_nothing_either() -> None:
    assert constant_rewards(rewarded("mine", [0.1, 0.7, 0.4], [0.0] * 3))


def test_one_that_applies_to_nothing_is_told_apart() -> None:
    (sentence,) = constant_rewards(rewarded("mine", [math.nan] * 3, [0.0] * 3))
    assert "'mine' applied to no completion" in sentence


def test_one_step_in_which_it_varies_is_enough() -> None:
    assert not constant_rewards(rewarded("mine", [1.0] * 3, [0.0, 0.1, 0.0]))


def test_a_healthy_run_and_a_short_one_say_nothing() -> None:
    assert symptoms([HEALTHY] * 50) == []
    assert symptoms([replace(HEALTHY, truncated=1.0)] * (WINDOW - 1)) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"truncated": 0.97}, "grpo.max_completion_length"),
        ({"zero_signal": 1.0}, "nothing to learn from"),
        ({"mismatch": 0.3}, "Sampler and update disagree"),
    ],
)
def test_what_keeps_a_run_from_learning_is_told_with_a_cure(
    figures: dict[str, float], words: str
) -> None:
    sick = replace(HEALTHY, **figures)  # type: ignore[arg-type]
    (sentence,) = symptoms([sick] * WINDOW)
    assert words in sentence
    assert symptoms([*[sick] * (WINDOW - 1), HEALTHY]) == [] or "mismatch" in figures


def test_divergence_of_reused_completions_is_no_mismatch() -> None:
    stale = replace(HEALTHY, mismatch=0.5, tokens_per_second=0.0)
    assert symptoms([HEALTHY, stale] * WINDOW) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"entropy": 0.01}, "grpo.entropy_weight"),
        ({"entropy": 9.0}, "grpo.learning_rate"),
        ({"kl": 2.0}, "grpo.kl_weight"),
    ],
)
def test_a_collapse_is_told_while_the_reward_falls(figures: dict[str, float], words: str) -> None:
    rise = [replace(HEALTHY, reward=0.1 + 0.02 * i) for i in range(40)]
    falling = [replace(HEALTHY, reward=0.4, **figures)] * (2 * WINDOW)  # type: ignore[arg-type]
    (sentence,) = symptoms(rise + falling)
    assert "collapsing" in sentence
    assert words in sentence
    still_high = [replace(step, reward=0.9) for step in falling]
    assert symptoms(rise + still_high) == []


def test_a_reward_that_falls_in_bounds_is_no_collapse() -> None:
    rise = [replace(HEALTHY, reward=0.1 + 0.02 * i) for i in range(40)]
    assert symptoms(rise + [replace(HEALTHY, reward=0.4)] * 30) == []


@pytest.mark.parametrize("kind", ["lora", "ffa_lora", "tiny_lora"])
def test_learning_rates_far_off_for_the_adapter_are_named(kind: str) -> None:
    def advice(rate: float, optimiser: str = "adamw") -> str:
        settings = GRPOSettings.model_validate({"learning_rate": rate, "optimiser": optimiser})
        return "".join(step_size_advice(kind, settings))

    assert "hardly move" in advice(1e-7)
    assert "break" in advice(1.0)
    assert advice(1e-3) == ""
    assert advice(30.0, "sgd") == ""


def test_an_end_token_that_does_not_end_completions_is_named() -> None:
    base = tiny_base()
    foreign = next(i for i in range(5, 40) if i not in base.eos_ids)
    base.tokenizer.add_special_tokens(
        {"additional_special_tokens": [base.tokenizer.convert_ids_to_tokens(foreign)]}
    )
    tokens = torch.full((4, 6), 12)
    tokens[:3, 2] = foreign
    rollout = Rollout(
        ((5, 6),),
        tokens,
        torch.zeros(4, 6),
        torch.ones(4, 6, dtype=torch.bool),
        torch.tensor([False, False, False, True]),
        4,
    )
    (sentence,) = missed_ends(rollout, base)
    assert f"id {foreign}" in sentence
    assert "eos_token_id" in sentence
    tokens[:2, 2] = 12
    assert missed_ends(rollout, base) == []


@pytest.mark.slow
def test_a_trainer_warns_of_it_in_the_same_words_and_logs_every_reward() -> None:
    def dull(completions: list[str]) -> list[float]:
        return [0.25] * len(completions)

    trainer = tiny_trainer(prompts_per_step=1, group_size=2)
    trainer.collector.reward = RewardMixture(
        [("dull", dull, 1.0), ("graded", graded, 1.0), ("exact", exact_match, 1.0)]
    )
    with pytest.warns(UserWarning, match="'dull' never varied") as caught:
        metrics = list(trainer.train(WINDOW + 1))
    sentences = [str(w.message) for w in caught if "'dull'" in str(w.message)]
    assert len(set(sentences)) == 1
    assert not any("'graded'" in str(w.message) for w in caught)
    assert metrics[0].rewards["dull"] == 0.25
    assert metrics[0].reward_spreads["dull"] == 0.0
    assert metrics[0].reward == pytest.approx(sum(metrics[0].rewards.values()))


def test_one_batch_tells_what_is_plain_to_see_without_counting_steps() -> None:
    assert glance(HEALTHY) == []
    cut, silent = glance(replace(HEALTHY, truncated=1.0, zero_signal=1.0))
    assert "grpo.max_completion_length" in cut
    assert "nothing to learn from" in silent
    (dead,) = glance(replace(HEALTHY, reward_spreads={"good": 0.0}))
    assert "'good' never varied within a group, so" in dead
    assert not any("steps" in sentence for sentence in (cut, silent, dead))
