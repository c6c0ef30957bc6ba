"""Each knob does what its name says, and the update scores what the sampler drew from."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from fedgrpo.data.prompts import as_row
from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import BaseModel, load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings, Scalar, Settings
from tests.models import graded, rows, stirred

KNOBS: list[dict[str, Any]] = [
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.1},
    {"repetition_penalty": 1.4},
    {"stop_strings": "7"},
    {"top_k": 8, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 0.8, "entropy_weight": 0.01},
]


@lru_cache(maxsize=1)
def base() -> BaseModel:
    return load_base(ModelSettings(device="cpu"))


def trainer(spread: float = 0.02, **changes: Any) -> GRPOTrainer:
    adapter = stirred(Adapter(base(), AdapterSettings()), spread)
    given = {"prompts_per_step": 8, "group_size": 6, **changes}
    return GRPOTrainer(adapter, graded, rows(12), settings=GRPOSettings.model_validate(given))


@pytest.mark.slow
@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_the_update_scores_the_distribution_that_was_sampled_from(knob: dict[str, Any]) -> None:
    made = trainer(**knob)
    metrics = made.step()
    assert abs(metrics.mismatch) < 1e-6
    assert metrics.applied
    # Token by token, too.
    experience = made.gather().experience
    for batch in made.policy.pack(experience.rollout, range(len(experience.rollout.mask))):
        mask = experience.rollout.mask[batch.completions]
        logps = made.policy.logps(experience.rollout, batch).detach()
        sampler = experience.rollout.logps[batch.completions]
        assert torch.allclose(logps[mask], sampler[mask], atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("knob", KNOBS[:4], ids=str)
def test_a_knob_changes_what_is_sampled(knob: dict[str, Any]) -> None:
    plain, turned = trainer(0.0).gather([0, 1]), trainer(0.0, **knob).gather([0, 1])
    assert not torch.equal(plain.experience.rollout.tokens, turned.experience.rollout.tokens)


def test_one_token_is_left_by_top_k_of_one() -> None:
    rollout = trainer(0.0, top_k=1, temperature=2.0).gather([0, 1, 2]).experience.rollout
    assert torch.equal(rollout.logps, torch.zeros_like(rollout.logps))
    groups = rollout.tokens.view(3, 6, -1)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))


def test_completions_end_with_the_text_that_stops_them() -> None:
    texts = ["7", "31"]
    made = trainer(0.0, stop_strings=texts)
    rollout = made.gather(range(8)).experience.rollout
    decoded = made.policy.decode(rollout)
    stopped = [text for text in decoded if any(stop in text for stop in texts)]
    assert len(stopped) > 3
    for text in stopped:
        assert not any(stop in text[:-1] for stop in texts)
    ended = [any(stop in text for stop in texts) for text in decoded]
    assert rollout.ended[torch.tensor(ended)].all()
    # What was not stopped is what it would have been.
    free = trainer(0.0).gather(range(8)).experience.rollout
    for row in range(len(ended)):
        length = int(rollout.mask[row].sum())
        assert torch.equal(rollout.tokens[row, :length], free.tokens[row, :length])
        assert ended[row] or torch.equal(rollout.mask[row], free.mask[row])


def test_held_out_completions_are_sampled_under_the_same_knobs() -> None:
    settings = GRPOSettings(top_k=1, stop_strings="7")
    adapter = stirred(Adapter(base(), AdapterSettings()), 0.02)
    held_out = [as_row({"prompt": r.prompt, **r.columns}, "x", 1) for r in rows(12)]
    made = HeldOut(adapter, RewardMixture([("graded", graded, 1.0)]), held_out, settings, 0)
    sampled, greedy = made.sampled(), made.greedy()
    assert torch.equal(sampled.rollout.tokens, greedy.rollout.tokens)
    assert all("7" not in text[:-1] for text in made.policy.decode(greedy.rollout))


def test_whatever_a_token_was_it_can_be_scored_later() -> None:
    """A token that fell out of what is kept has a finite ratio and gradient."""
    made = trainer(top_k=2, passes=2)
    rollout = trainer().gather([0, 1, 2]).experience.rollout
    for batch in made.policy.pack(rollout, range(len(rollout.mask))):
        logps = made.policy.logps(rollout, batch)
        assert logps.isfinite().all()
        logps.sum().backward()
    gradients = [p.grad for p in made.adapter.trainable.values() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.slow
def test_neutral_knobs_change_no_bit_of_training() -> None:
    neutral = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    neutral |= {"stop_strings": [], "warmup_steps": 0, "weight_decay": 0.0}
    neutral |= {"lr_scheduler_type": "constant", "gradient_accumulation_steps": 1}
    plain, turned = trainer(), trainer(**neutral, max_completion_length=10)
    for one, other in zip(plain.train(2), turned.train(2), strict=True):
        assert (one.loss, one.grad_norm, one.mismatch) == (
            other.loss,
            other.grad_norm,
            other.mismatch,
        )
    assert plain.adapter.vector().tobytes() == turned.adapter.vector().tobytes()


@pytest.mark.slow
def test_parts_of_a_gradient_add_up_to_the_whole() -> None:
    whole, parts = trainer(), trainer(gradient_accumulation_steps=3)
    one, other = whole.step(), parts.step()
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    assert np.allclose(whole.adapter.vector(), parts.adapter.vector(), atol=1e-5)
    pieces = list(parts.updater.batches(parts.gather().experience))
    assert len(pieces) == 3


@pytest.mark.slow
def test_the_rate_follows_the_schedule_of_all_steps_of_a_run() -> None:
    made = trainer(lr_scheduler_type="linear", warmup_steps=1, learning_rate=1e-2)

    def rates(steps: int) -> list[float]:
        return [made.updater.optimiser.param_groups[0]["lr"] for _ in made.train(steps)]

    assert rates(3) == pytest.approx([5e-3, 1e-2, 5e-3])
    made.start_round(0, earlier=2, of_run=5)
    assert rates(3) == pytest.approx([7.5e-3, 5e-3, 2.5e-3])


@pytest.mark.slow
def test_decay_draws_the_adapter_to_zero() -> None:
    free, drawn = trainer(), trainer(weight_decay=5.0, learning_rate=1e-2)
    before = np.linalg.norm(drawn.adapter.vector())
    drawn.step()
    free.updater.set_rate(1.0)
    assert free.updater.optimiser.param_groups[0]["weight_decay"] == 0
    assert np.linalg.norm(drawn.adapter.vector()) < before * 1.2


def test_the_longest_completion_follows_the_model_where_none_is_set() -> None:
    assert Settings().grpo.max_completion_length == 10
    other = Settings.from_mapping({"model": {"name": "Qwen/Qwen3-0.6B"}})
    assert other.grpo.max_completion_length == 256
    assert Settings.from_run_config(other.to_run_config()) == other
    named = Settings.from_run_config({"model.name": "x/y", "grpo.max_completion_length": 10})
    assert named.grpo.max_completion_length == 10
    unset = Settings().to_run_config()
    assert Settings.from_run_config(unset | {"model.name": "x/y"}).grpo == other.grpo
    assert trainer().settings.max_completion_length == 10


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("", ()),
        ("\n\n", ("\n\n",)),
        ("a, b", ("a, b",)),
        ('["a, b", "]"]', ("a, b", "]")),
        (["x", "\n"], ("x", "\n")),
    ],
)
def test_texts_that_stop_may_hold_any_characters_and_travel(
    written: object, texts: tuple[str, ...]
) -> None:
    settings = Settings.from_mapping({"grpo": {"stop_strings": written}})
    assert settings.grpo.stop_texts() == texts
    assert Settings.from_run_config(settings.to_run_config()).grpo.stop_texts() == texts


@pytest.mark.parametrize("wrong", [[""], ["a"] * 17, ["a" * 101], [1]])
def test_texts_that_cannot_stop_are_refused(wrong: list[object]) -> None:
    with pytest.raises(SettingsError, match=r"grpo\.stop_strings"):
        Settings.from_mapping({"grpo": {"stop_strings": wrong}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight_decay", 0.1),
        ("warmup_steps", 3),
        ("lr_scheduler_type", "cosine"),
        ("gradient_accumulation_steps", 2),
    ],
)
def test_prompt_level_privacy_refuses_knobs_of_a_local_step_by_name(
    key: str, value: Scalar
) -> None:
    with pytest.raises(SettingsError, match=rf"grpo\.{key} = .* cannot go with privacy\.unit"):
        Settings.from_run_config({f"grpo.{key}": value, "privacy.unit": "prompt"})


def test_a_penalty_does_not_go_with_two_prompts() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.repetition_penalty = 1.2 cannot go with"):
        Settings.from_mapping(
            {
                "privacy": {"unit": "none"},
                "grpo": {"guidance": "contexts", "repetition_penalty": 1.2},
            }
        )


def test_a_plan_carries_the_knobs_to_any_engine() -> None:
    adapter = Adapter(base(), AdapterSettings())
    plan = Policy(adapter, GRPOSettings(top_p=0.5, stop_strings="1")).sampling_plan()
    assert plan.warping.top_p == 0.5
    assert plan.stops is not None
    assert replace(plan, stops=None).stops is None
