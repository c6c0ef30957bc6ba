from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from fedgrpo.grpo.health import CONSTANT_STEPS, constant_rewards
from fedgrpo.rewards import RewardMixture, exact_match
from tests.models import graded, tiny_trainer


@dataclass(frozen=True)
class Figures:
    rewards: dict[str, float]
    reward_spreads: dict[str, float]


def _steps(means: list[float], spreads: list[float]) -> list[Figures]:
    return [
        Figures({"mine": mean, "good": mean}, {"mine": spread, "good": 1.0})
        for mean, spread in zip(means, spreads, strict=True)
    ]


def test_a_reward_that_never_varies_is_named_with_a_cure() -> None:
    (sentence,) = constant_rewards(_steps([1.0] * 4, [0.0] * 4), last=4)
    assert "'mine' never varied within a group in 4 steps" in sentence
    assert "group_size" in sentence


def test_one_that_differs_between_prompts_only_teaches_nothing_either() -> None:
    assert constant_rewards(_steps([0.1, 0.7, 0.4], [0.0] * 3), last=3)


def test_one_that_applies_to_nothing_is_told_apart() -> None:
    (sentence,) = constant_rewards(_steps([math.nan] * 3, [0.0] * 3), last=3)
    assert "'mine' applied to no completion" in sentence


@pytest.mark.parametrize("spreads", [[0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.2]])
def test_short_histories_and_any_variation_say_nothing(spreads: list[float]) -> None:
    assert constant_rewards(_steps([1.0] * len(spreads), spreads), last=3) == []


def test_only_the_last_steps_count() -> None:
    assert constant_rewards(_steps([1.0] * 4, [0.5, 0.0, 0.0, 0.0]), last=3)


def test_a_trainer_warns_of_it_in_the_same_words_and_logs_every_reward() -> None:
    def dull(completions: list[str]) -> list[float]:
        return [0.25] * len(completions)

    trainer = tiny_trainer(prompts_per_step=1, group_size=2)
    trainer.reward = RewardMixture(
        [("dull", dull, 1.0), ("graded", graded, 1.0), ("exact", exact_match, 1.0)]
    )
    with pytest.warns(UserWarning, match="'dull' never varied") as caught:
        metrics = list(trainer.train(CONSTANT_STEPS + 1))
    sentences = [str(w.message) for w in caught if "'dull'" in str(w.message)]
    assert len(set(sentences)) == 1
    assert not any("'graded'" in str(w.message) for w in caught)
    assert metrics[0].rewards["dull"] == 0.25
    assert metrics[0].reward_spreads["dull"] == 0.0
    assert metrics[0].reward == pytest.approx(sum(metrics[0].rewards.values()))
