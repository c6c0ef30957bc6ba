"""VinePPO's steps cover each completion, and their advantages add up to what happened."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.grpo import GRPOTrainer
from fedgrpo.grpo.methods.credit.vine import split_steps, step_advantages
from tests.models import tiny_trainer

pytestmark = pytest.mark.slow


@given(
    st.lists(st.sampled_from(["a", "bc", ".\n", "\n"]), min_size=1, max_size=30), st.integers(1, 9)
)
def test_steps_cover_the_completion_once_and_none_is_too_long(
    pieces: list[str], longest: int
) -> None:
    steps = split_steps(pieces, longest)
    covered = [token for span in steps.spans() for token in range(len(pieces))[span]]
    assert covered == list(range(len(pieces)))
    # The end token may come on top.
    assert all(1 <= span.stop - span.start <= longest + 1 for span in steps.spans())


def test_a_line_end_ends_a_step_and_the_end_token_is_none_of_its_own() -> None:
    assert split_steps(["a", "b\n", "c", "<eos>"], 99).starts == (0, 2)
    assert split_steps(["a", "b\n", "<eos>"], 99).starts == (0,)
    assert split_steps(["a", "b", "c", "d", "<eos>"], 2).starts == (0, 2)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.floats(-3, 3))
def test_advantages_telescope_to_the_outcome_less_the_first_value(
    values: list[float], reward: float
) -> None:
    lengths = [1] * len(values)
    steps = split_steps(["x\n"] * len(values) + ["<eos>"], 99)
    known = values[: len(steps.starts)]
    advantages = step_advantages(steps, known, reward)
    assert sum(advantages) == pytest.approx(reward - known[0], abs=1e-9)
    assert len(advantages) <= len(lengths) + 1


def vine(**settings: object) -> GRPOTrainer:
    """Steps of two tokens; shorter is better, so the choice to stop decides."""

    def shorter(completions: list[str]) -> list[float]:
        return [-float(len(text)) for text in completions]

    options = {"preset": "vine_ppo", "vine_step": 2, "vine_rollouts": 3, **settings}
    return tiny_trainer(24, reward=shorter, **options)


def test_tokens_of_one_step_share_an_advantage_that_sums_to_the_outcome() -> None:
    trainer = vine()
    experience = trainer.gather([0, 1, 2]).experience
    rollout, advantages = experience.rollout, experience.advantages
    assert advantages.shape == rollout.mask.shape
    assert not advantages[~rollout.mask].any()
    firsts: dict[int, set[float]] = {}
    for row in range(len(advantages)):
        length = int(rollout.mask[row].sum())
        starts = split_steps(["x"] * length, 2).starts
        total = sum(float(advantages[row, start]) for start in starts)
        value = float(experience.rewards.total[row]) - total
        firsts.setdefault(row // 4, set()).add(round(value, 4))
        for span in split_steps(["x"] * length, 2).spans():
            assert len(set(advantages[row, span].tolist())) == 1
    assert all(len(values) == 1 for values in firsts.values()), "one value for one prompt"


def test_states_that_completions_share_are_valued_once_and_all_rollouts_are_counted() -> None:
    trainer = vine(vine_step=8)
    figures = trainer.gather([0, 1, 2, 3]).figures
    assert figures.figures["valued_states"] == 4
    assert figures.completions == 4 * 4 + 4 * 3


def test_a_value_is_the_mean_reward_of_whole_completions_from_there() -> None:
    """A reward of the first character: once it is written, its value is certain."""

    def starts_with_digit(completions: list[str]) -> list[float]:
        return [float(text[:1] in set("13579bdf")) for text in completions]

    trainer = tiny_trainer(
        24, reward=starts_with_digit, preset="vine_ppo", vine_step=1, vine_rollouts=2
    )
    experience = trainer.gather(range(8)).experience
    later = experience.advantages[:, 1:]
    assert torch.equal(later, torch.zeros_like(later))
    assert experience.advantages[:, 0].any()


def test_reward_goes_up() -> None:
    trainer = vine(prompts_per_step=12, learning_rate=1e-2)
    rewards = [step.reward for step in trainer.train(10)]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.3
