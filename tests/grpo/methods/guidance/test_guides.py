"""Guides through the trainer: what joins a group, what is sampled from, and how it is weighed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.grpo import GRPOTrainer, load_trainer, save_trainer
from fedgrpo.grpo.methods.guidance.contexts import plain_power
from fedgrpo.rewards.verifiable.verifiers import exact_match
from fedgrpo.settings import GRPOSettings, Settings
from tests.models import graded, tiny_base, tiny_trainer

pytestmark = pytest.mark.slow

SHOWN = "{answer} {prompt}"


def critic(**settings: object) -> GRPOTrainer:
    options = {
        "preset": "critique_grpo",
        "critique_prompt": "{critique}{completion} {prompt}",
        **settings,
    }
    return tiny_trainer(24, reward=graded, **options)


def informed(**settings: object) -> GRPOTrainer:
    options = {"preset": "contexts", "informed_prompt": SHOWN, **settings}
    return tiny_trainer(24, reward=settings.pop("reward", graded), **options)  # type: ignore[arg-type]


def test_the_best_refinement_joins_each_group_and_is_marked() -> None:
    experience = critic().collect([0, 1, 2])
    assert experience.rollout.group_size == 5
    assert experience.refined is not None
    assert experience.refined.reshape(3, 5).tolist() == [[False] * 4 + [True]] * 3
    groups = experience.rewards.total.reshape(3, 5)
    advantages = experience.advantages.reshape(3, 5).double().numpy()
    assert np.allclose(advantages, groups - groups.mean(axis=1, keepdims=True), atol=1e-5)
    part = experience.part([1])
    assert part.refined is not None
    assert part.refined.tolist() == [False] * 4 + [True]


def test_refinements_are_learned_by_their_own_probability_under_the_plain_prompt() -> None:
    trainer = critic(entropy_weight=0.0)
    experience = trainer.collect([0, 1])
    (batch,) = trainer.updater.batches(experience)
    totals = trainer.updater.totals(experience)
    result = trainer.updater.loss(experience, batch, totals)
    logps = trainer.policy.logps(experience.rollout, batch).detach()
    mask = experience.rollout.mask[batch.completions]
    assert experience.refined is not None
    refined = experience.refined[batch.completions][:, None]
    weight = torch.where(refined, logps.exp() / (logps.exp() + 0.1), torch.ones_like(logps))
    advantages = experience.advantages[batch.completions][:, None]
    expected = -(weight * advantages * mask).sum() / (totals.sequences * totals.max_length)
    assert float(result.loss) == pytest.approx(float(expected), rel=1e-3)


def test_critique_goes_up_and_counts_all_that_it_samples() -> None:
    steps = list(critic(prompts_per_step=8, learning_rate=1e-2).train(10))
    assert steps[0].completions == 2 * 8 * 4
    assert "refined_reward" in steps[0].figures
    assert np.mean([s.reward for s in steps[-3:]]) > np.mean([s.reward for s in steps[:3]]) + 0.3


def test_power_of_the_plain_prompt_goes_from_its_start_to_one() -> None:
    assert [plain_power(i, 0.5, 4) for i in range(6)] == [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]


def test_once_the_answer_is_out_of_sight_nothing_differs_from_plain_sampling() -> None:
    plain = tiny_trainer(24, reward=graded, preset="cispo", clip_low=1.0, clip_high=4.0)
    guided = informed(informed_start=1.0)
    for trainer in (plain, guided):
        list(trainer.train(3))
    assert np.array_equal(plain.adapter.vector(), guided.adapter.vector())


def test_probabilities_are_the_normalised_product_of_both_contexts() -> None:
    trainer = informed(informed_start=0.3, prompts_per_step=2, group_size=2)
    rollout = trainer.collect([0, 1]).rollout
    base, causal = trainer.adapter.base, trainer.adapter.causal
    for row in range(4):
        prompt = trainer.collector.rows[row // 2]
        shown = SHOWN.replace("{answer}", prompt.columns["answer"])
        shown = shown.replace("{prompt}", str(prompt.prompt))
        length = int(rollout.mask[row].sum())
        tokens = rollout.tokens[row, :length]
        product = 0
        for power, text in ((0.3, str(prompt.prompt)), (0.7, shown)):
            ids = torch.tensor([[*base.tokenizer(text)["input_ids"], *tokens.tolist()]])
            with torch.no_grad():
                logits = causal(input_ids=ids).logits[0, -length - 1 : -1]
            product = product + power * logits.log_softmax(-1)
        expected = product.log_softmax(-1).gather(1, tokens[:, None])[:, 0]  # type: ignore[attr-defined]
        assert torch.allclose(rollout.logps[row, :length], expected, atol=1e-4)


def test_ratio_to_the_product_is_the_weight_of_the_plain_prompt() -> None:
    trainer = informed(informed_start=0.2)
    metrics = trainer.step()
    assert metrics.mismatch > 1e-3
    assert trainer.collector.guide.state_dict() == {"batches": 1}


def test_each_round_shows_the_answer_as_much_as_the_first() -> None:
    trainer = informed()
    list(trainer.train(2))
    trainer.start_round(1)
    assert trainer.collector.guide.state_dict() == {"batches": 0}


def test_the_schedule_is_part_of_what_is_carried_on(tmp_path: Path) -> None:
    def begun() -> GRPOTrainer:
        return informed(informed_batches=5)

    whole = begun()
    list(whole.train(6))
    first = begun()
    list(first.train(2))
    save_trainer(first, tmp_path / "state.pt")
    second = begun()
    load_trainer(second, tmp_path / "state.pt")
    list(second.train(4))
    assert np.array_equal(second.adapter.vector(), whole.adapter.vector())


@pytest.mark.parametrize("preset", ["critique_grpo", "contexts"])
def test_rows_without_the_answer_are_refused_before_work_starts(preset: str) -> None:
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "secret"}]
    with pytest.raises(DataError, match="prompt 2 has no 'answer'") as caught:
        GRPOTrainer(tiny_base(), exact_match, rows, settings=GRPOSettings(preset=preset))
    assert "secret" not in str(caught.value)


def test_templates_with_other_fields_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.informed_prompt"):
        informed(informed_prompt="{prompt}")


def test_refinements_and_their_loss_need_each_other() -> None:
    for grpo in ({"guidance": "critique"}, {"loss": "critique_grpo"}):
        with pytest.raises(SettingsError, match=r"grpo\.guidance"):
            Settings.from_mapping({"grpo": grpo, "privacy": {"unit": "none"}})
