"""What samples is a part: another engine's completions are held against what was asked for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedgrpo.ground.errors import FedGRPOError, ModelError
from fedgrpo.grpo.rollout.engines import ENGINES, OwnEngine, checked
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings, Scalar, Settings
from tests.models import graded, rows, stirred

NAME = f"{Path(__file__).parents[3]}/examples/my_parts.py:ByGenerate"


class Wrong:
    """Tells lower probabilities than it drew from."""

    def __init__(self, made: Adapter) -> None:
        self.right = ENGINES[NAME](made)

    def sample(self, prompts: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
        found = self.right.sample(prompts, plan)
        return replace(found, logps=found.logps - 0.5 * found.mask)


def adapter() -> Adapter:
    base = load_base(ModelSettings(device="cpu", dtype="float32"))
    return stirred(Adapter(base, AdapterSettings()), 0.02)


def encoded(made: Adapter) -> list[tuple[int, ...]]:
    return [tuple(made.base.tokenizer.encode(f"sort {i}31=")) for i in (4, 72, 5)]


def test_greedy_completions_and_their_logps_are_those_of_generate() -> None:
    made = adapter()
    plan = SamplingPlan(2, 10, 0.0, made.base.eos_ids, 0)
    ours = OwnEngine(made).sample(encoded(made), plan)
    theirs = ENGINES[NAME](made).sample(encoded(made), plan)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.allclose(ours.logps, theirs.logps, atol=1e-5)


def test_another_engine_trains_and_the_mismatch_watches_it() -> None:
    settings = GRPOSettings(engine=NAME, prompts_per_step=6, group_size=4, max_completion_length=6)
    made = adapter()
    metrics = GRPOTrainer(made, graded, rows(6), settings=settings).step()
    assert metrics.completions == 24
    assert abs(metrics.mismatch) < 1e-6
    trainer = GRPOTrainer(made, graded, rows(6), settings=settings)
    trainer.policy.engine = Wrong(made)
    assert trainer.step().mismatch > 0.05


def test_what_does_not_fit_is_refused() -> None:
    made = adapter()
    plan = SamplingPlan(2, 10, 1.0, made.base.eos_ids, 0)
    prompts = encoded(made)
    found = OwnEngine(made).sample(prompts, plan)
    assert checked(found, prompts, plan) is found
    for wrong in (
        replace(found, tokens=found.tokens[:, :-1]),
        replace(found, logps=found.logps + torch.nan),
        replace(found, group_size=3),
    ):
        with pytest.raises(ModelError, match=r"grpo\.engine gave tokens of shape"):
            checked(wrong, prompts, plan)
    with pytest.raises(FedGRPOError, match=r"grpo\.engine = 'vllm' is unknown"):
        ENGINES.check("vllm")


@pytest.mark.parametrize(
    ("key", "value"),
    [("engine", "e.py:f"), ("memory_gb", 1.0), ("gradient_checkpointing", True)],
)
def test_prompt_level_privacy_takes_none_of_it(key: str, value: Scalar) -> None:
    with pytest.raises(
        FedGRPOError, match=rf"grpo\.{key}.* cannot go with privacy.unit = 'prompt'"
    ):
        Settings.from_run_config({f"grpo.{key}": value, "privacy.unit": "prompt"})


def test_gradient_checkpointing_changes_no_figure_of_an_update() -> None:
    steps = []
    for wanted in (False, True):
        settings = GRPOSettings(
            gradient_checkpointing=wanted, prompts_per_step=6, group_size=4, max_completion_length=6
        )
        trainer = GRPOTrainer(adapter(), graded, rows(6), settings=settings)
        steps.append(trainer.step())
        assert not any(module.training for module in trainer.adapter.model.modules())
    assert steps[0].grad_norm > 0
    assert steps[0].grad_norm == pytest.approx(steps[1].grad_norm, rel=1e-5)
    assert steps[0].loss == pytest.approx(steps[1].loss, abs=1e-6)
