import numpy as np
import pytest
import torch

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError, RewardError, SettingsError
from fedgrpo.grpo import GRPOTrainer
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.grpo.rollout.packing import pack
from fedgrpo.settings import GRPOSettings, Settings
from tests.models import graded, stirred, tiny_base, tiny_trainer


@pytest.mark.slow
def test_ten_lines_of_python_train_without_a_federation() -> None:
    def shorter(completions: list[str], **_: object) -> list[float]:
        return [-float(len(text)) for text in completions]

    prompts = [{"prompt": f"{a}+{b}="} for a in range(8) for b in range(4)]
    settings = GRPOSettings(prompts_per_step=16, learning_rate=5e-3)
    trainer = GRPOTrainer("tiny", shorter, prompts, settings=settings)
    metrics = list(trainer.train(steps=12))
    assert (
        np.mean([m.length for m in metrics[-3:]]) < np.mean([m.length for m in metrics[:3]]) - 0.3
    )


def test_settings_describe_a_trainer_and_callbacks_hear_of_every_step() -> None:
    grpo = {"prompts_per_step": 2, "group_size": 2}
    settings = Settings.from_mapping(
        {"grpo": grpo, "seed": 5, "reward": {"functions": ["exact_match"]}}
    )
    rows = [{"prompt": "sort 21=", "answer": "12"}, {"prompt": "sort 31=", "answer": "13"}]
    heard: list[int] = []

    class Listening:
        def on_step(self, metrics: StepMetrics) -> None:
            heard.append(metrics.step)

    trainer = GRPOTrainer.from_settings(settings, rows)
    assert trainer.collector.reward.names == ["exact_match"]
    list(trainer.train(2, callbacks=[Listening()]))
    assert heard == [1, 2]
    again = GRPOTrainer.from_settings(
        settings, rows, adapter=trainer.adapter, reward=lambda completions: [0.0] * len(completions)
    )
    assert again.adapter is trainer.adapter
    unknown = settings.model_copy(
        update={"grpo": settings.grpo.model_copy(update={"loss": "lost"})}
    )
    with pytest.raises(SettingsError, match="lost"):
        GRPOTrainer.from_settings(unknown, rows)


@pytest.mark.slow
def test_same_seed_gives_the_same_adapter_to_the_bit() -> None:
    vectors = []
    for _ in range(2):
        trainer = tiny_trainer()
        list(trainer.train(2))
        vectors.append(trainer.adapter.vector())
    assert np.array_equal(*vectors)
    assert vectors[0].any()


@pytest.mark.slow
def test_micro_batches_do_not_change_the_step() -> None:
    vectors = []
    for budget in (1, 10**6):
        trainer = tiny_trainer(tokens_per_batch=budget, prompts_per_step=8)
        trainer.step(range(8))
        vectors.append(trainer.adapter.vector())
    assert np.allclose(*vectors, atol=1e-5)


@pytest.mark.slow
def test_sgd_moves_by_the_clipped_gradient_and_nothing_else() -> None:
    moved = {}
    for rate in (0.5, 1.0):
        trainer = tiny_trainer(learning_rate=rate, optimiser="sgd", max_grad_norm=0.05)
        before = trainer.adapter.vector()
        assert trainer.step(range(8)).grad_norm > 0.05
        moved[rate] = trainer.adapter.vector() - before
    assert np.allclose(2 * moved[0.5], moved[1.0], atol=1e-6)
    assert np.linalg.norm(moved[1.0]) == pytest.approx(0.05, rel=1e-3)


def test_groups_that_agree_move_nothing() -> None:
    trainer = tiny_trainer()
    trainer.collector.reward = type(trainer.collector.reward)(
        [("one", lambda completions: [1.0] * len(completions), 1.0)]
    )
    metrics = trainer.step(range(4))
    assert not metrics.applied
    assert metrics.zero_signal == 1.0
    assert not trainer.adapter.vector().any()


def test_truncated_completions_take_no_part_in_the_update() -> None:
    trainer = tiny_trainer(max_completion_length=1)
    experience = trainer.collect(range(16))
    kept = experience.useful(with_silent=True)
    assert experience.rollout.ended[kept].all()
    assert len(kept) < len(experience.advantages)
    assert trainer.step(range(16)).truncated > 0.5


def test_step_that_is_not_finite_is_skipped() -> None:
    trainer = tiny_trainer(prompts_per_step=16)
    before = trainer.adapter.vector()
    handle = next(iter(trainer.adapter.trainable.values())).register_hook(
        lambda g: g * float("nan")
    )
    metrics = trainer.step(range(16))
    handle.remove()
    assert not metrics.applied
    assert np.array_equal(trainer.adapter.vector(), before)


@pytest.mark.slow
def test_divergence_from_the_rounds_adapter_grows_and_a_penalty_holds_it() -> None:
    drift = []
    for weight in (0.0, 1.0):
        trainer = tiny_trainer(kl_weight=weight, learning_rate=1e-3, prompts_per_step=8)
        metrics = list(trainer.train(10))
        assert metrics[0].kl == pytest.approx(0.0, abs=1e-6)
        drift.append(np.mean([m.kl for m in metrics[-3:]]))
    assert drift[0] > 1e-3
    assert drift[1] < drift[0] / 2


@pytest.mark.slow
def test_every_prompt_is_used_once_before_any_returns() -> None:
    trainer = tiny_trainer(12)
    chosen = [i for _ in range(3) for i in trainer.next_prompts()]
    assert sorted(chosen) == list(range(12))


def test_chat_prompts_go_through_the_template_and_rewards_see_messages() -> None:
    base = tiny_base()
    base.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}={% endfor %}"
    seen: list[object] = []

    def reward(prompts: list[object], completions: list[object], **_: object) -> list[float]:
        seen.extend([prompts[0], completions[0]])
        return [0.0] * len(prompts)

    message = {"role": "user", "content": "sort 21"}
    trainer = GRPOTrainer(base, reward, [PromptRow((message,))])
    assert base.tokenizer.decode(trainer.collector.encoded[0]) == "sort 21="
    trainer.collect([0])
    assert seen[0] == [message]
    assert seen[1][0]["role"] == "assistant"  # type: ignore[index]


def test_chat_prompts_without_a_template_are_refused() -> None:
    with pytest.raises(DataError, match="chat template"):
        GRPOTrainer(tiny_base(), graded, [PromptRow(({"role": "user", "content": "x"},))])


def test_long_prompt_is_refused_by_number_and_not_quoted() -> None:
    rows = [PromptRow("1+1="), PromptRow("secret " * 20)]
    with pytest.raises(DataError, match="max_prompt_length") as caught:
        GRPOTrainer(tiny_base(), graded, rows, settings=GRPOSettings(max_prompt_length=30))
    assert "secret" not in str(caught.value)


def test_reward_that_raises_names_itself() -> None:
    def broken(completions: list[str]) -> list[float]:
        raise KeyError(completions[0])

    trainer = tiny_trainer()
    trainer.collector.reward = type(trainer.collector.reward)([("broken", broken, 1.0)])
    with pytest.raises(RewardError, match="broken"):
        trainer.step(range(2))


def test_no_prompts_are_refused() -> None:
    with pytest.raises(DataError, match="no prompts"):
        GRPOTrainer(tiny_base(), graded, [])


def test_rollouts_are_sampled_from_the_adapter_not_from_the_base() -> None:
    trainer = tiny_trainer(reward=graded)
    stirred(trainer.adapter, 0.02)
    experience = trainer.collect(range(8))
    (batch,) = trainer.updater.batches(experience)
    sampler = experience.rollout.logps[batch.completions]
    mask = experience.rollout.mask[batch.completions]
    assert torch.allclose(
        trainer.policy.logps(experience.rollout, batch)[mask], sampler[mask], atol=1e-3
    )
    trainer.adapter.set_vector(np.zeros(trainer.adapter.dimension, np.float32))
    at_base = trainer.policy.logps(experience.rollout, batch)[mask]
    assert not torch.allclose(at_base, sampler[mask], atol=1e-2)


def test_what_a_shuffle_leaves_over_opens_the_next_step() -> None:
    trainer = tiny_trainer(10)
    steps = [trainer.next_prompts() for _ in range(5)]
    assert sorted(i for step in steps for i in step) == sorted([*range(10)] * 2)
    assert all(len(set(step)) == 4 for step in steps)


@pytest.mark.slow
def test_completions_serve_as_many_steps_as_asked_for_and_the_first_is_on_policy() -> None:
    trainer = tiny_trainer(
        32, reward=graded, prompts_per_step=16, passes=2, minibatches=2, learning_rate=1e-2
    )
    steps = list(trainer.train(5))
    fresh = [step.tokens_per_second > 0 for step in steps]
    assert fresh == [True, False, False, False, True]
    assert len({step.reward for step in steps[:4]}) == 1
    assert steps[0].mismatch == pytest.approx(0.0, abs=1e-6)
    assert steps[3].mismatch > 1e-5
    assert all(step.applied for step in steps)


def test_minibatches_share_out_whole_prompts() -> None:
    trainer = tiny_trainer(16, reward=graded, minibatches=3)
    batch = trainer.gather()
    assert sorted(i for part in batch.parts for i in part) == [0, 1, 2, 3]
    first = batch.experience.part(batch.parts[0])
    assert first.rollout.prompts == tuple(
        batch.experience.rollout.prompts[i] for i in batch.parts[0]
    )
    assert len(first.advantages) == 4 * len(batch.parts[0])


@pytest.mark.slow
def test_entropy_is_measured_without_bias() -> None:
    """The sampled tokens' -log p against the exact entropy of the distributions, token by token."""
    trainer = tiny_trainer(64, reward=graded, prompts_per_step=64, group_size=8)
    batch = trainer.gather()
    rollout = batch.experience.rollout
    surplus, exact = [], []
    with torch.no_grad():
        for part in pack(rollout, range(len(rollout.tokens)), tokens_per_batch=10**6):
            logps, entropy = trainer.policy.logps_and_entropy(rollout, part)
            mask = rollout.mask[part.completions]
            surplus.append((-logps - entropy)[mask])
            exact.append(entropy[mask])
    error = torch.cat(surplus)
    standard_error = float(error.std()) / len(error) ** 0.5
    assert abs(float(error.mean())) < 4 * standard_error < 0.1
    measured = float(torch.cat(exact).mean()) + float(error.mean())
    assert batch.figures.entropy == pytest.approx(measured, rel=1e-4)


@pytest.mark.slow
def test_an_entropy_bonus_keeps_the_policy_open() -> None:
    last = []
    for weight in (0.0, 1.0):
        trainer = tiny_trainer(
            16, reward=graded, prompts_per_step=16, entropy_weight=weight, learning_rate=1e-2
        )
        last.append(np.mean([step.entropy for step in trainer.train(12)][-3:]))
    assert last[1] > last[0] + 0.1
