"""PPO's critic learns what is to come and leaves the policy alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo import GRPOTrainer, load_trainer, save_trainer
from fedgrpo.grpo.learning.isolation import require_isolation
from fedgrpo.grpo.methods.credit.ppo import ValueHead
from fedgrpo.settings import GRPOSettings, Settings
from tests.models import graded, tiny_trainer

pytestmark = pytest.mark.slow


def ppo(**settings: object) -> GRPOTrainer:
    return tiny_trainer(32, reward=graded, **{"preset": "ppo", "prompts_per_step": 16, **settings})


def test_hidden_states_are_those_of_the_padded_forward_in_the_order_of_the_mask() -> None:
    trainer = ppo(tokens_per_batch=64)
    rollout = trainer.collect(range(6)).rollout
    hidden = trainer.policy.hidden_states(rollout)
    causal = trainer.adapter.causal
    number = 0
    for row in range(len(rollout.mask)):
        prompt = rollout.prompts[row // rollout.group_size]
        length = int(rollout.mask[row].sum())
        ids = torch.tensor([[*prompt, *rollout.tokens[row, :length].tolist()]])
        with torch.no_grad():
            whole = causal.model(input_ids=ids).last_hidden_state[0]
        expected = whole[len(prompt) - 1 : len(prompt) - 1 + length]
        assert torch.allclose(hidden[number : number + length], expected, atol=1e-4)
        number += length
    assert number == len(hidden)


def test_critic_explains_more_and_more_and_never_moves_the_adapter() -> None:
    trainer = ppo(
        learning_rate=1e-9,
        kl_weight=0.0,
        prompts_per_step=32,
        value_learning_rate=5e-2,
        value_clip=10.0,
    )
    before = trainer.adapter.vector()
    explained = [step.figures["explained_variance"] for step in trainer.train(20)]
    assert explained[0] == pytest.approx(0, abs=1e-6)
    assert np.mean(explained[-3:]) > 0.1
    assert np.allclose(trainer.adapter.vector(), before, atol=1e-6)


def test_reward_goes_up() -> None:
    rewards = [step.reward for step in ppo(learning_rate=1e-2).train(12)]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.3


def test_tokens_of_a_completion_get_advantages_of_their_own() -> None:
    trainer = ppo()
    list(trainer.train(3))
    advantages = trainer.gather().experience.advantages
    assert advantages.dim() == 2
    mask = trainer.gather().experience.rollout.mask
    assert float(advantages.std()) > 0
    assert (advantages.std(1) > 1e-3).any()
    assert mask.shape == advantages.shape


def test_critic_is_part_of_what_is_carried_on(tmp_path: Path) -> None:
    whole = ppo(passes=2)
    list(whole.train(6))
    first = ppo(passes=2)
    list(first.train(3))
    save_trainer(first, tmp_path / "state.pt")
    second = ppo(passes=2)
    load_trainer(second, tmp_path / "state.pt")
    list(second.train(3))
    assert np.array_equal(second.adapter.vector(), whole.adapter.vector())
    assert isinstance(second.credit, ValueHead)
    assert isinstance(whole.credit, ValueHead)
    assert torch.equal(second.credit.head.weight, whole.credit.head.weight)


def test_prompt_level_privacy_refuses_a_critic_that_sees_all_prompts() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.credit = 'gae'"):
        require_isolation(GRPOSettings(preset="ppo"))


def test_replacing_groups_is_refused_beside_a_critic() -> None:
    tree = {"grpo": {"preset": "ppo", "max_resamples": 1}, "privacy": {"unit": "none"}}
    with pytest.raises(SettingsError, match=r"grpo\.max_resamples = 1"):
        Settings.from_mapping(tree)
