"""What is foretold of memory is what is taken, and too much of it is refused."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.forecast import TIMES, Forecast, foretold, foretold_apart
from fedgrpo.grpo.isolated.shapes import Layout
from fedgrpo.grpo.isolated.teaching import batch_loss, teaching_batch
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.sampling import as_rollout
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.family.row_gradients import row_gradients
from fedgrpo.model.kernels.packed_attention import use_packed_attention
from fedgrpo.rewards.composite import RewardResult
from fedgrpo.settings import GRPOSettings
from tests.models import graded, tiny_base

PROMPT = 16
SHAPES = {
    "wide": (
        {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "head_dim": 64},
        GRPOSettings(prompts_per_step=4, group_size=8, max_completion_length=48),
    ),
    "deep": (
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 16, "head_dim": 64},
        GRPOSettings(prompts_per_step=4, group_size=8, max_completion_length=80),
    ),
}


def trainer(name: str) -> GRPOTrainer:
    torch.manual_seed(0)
    shape, settings = SHAPES[name]
    more = {"vocab_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**shape, **more)).eval().requires_grad_(False)
    use_packed_attention(model)
    base = replace(tiny_base(), model=model, eos_ids=(64,))
    rows = [PromptRow("1+2=", {})] * 8
    return GRPOTrainer(base, graded, rows, settings=settings)


def peak(work: Callable[[], object]) -> int:
    """Bytes that the process grew by while this was done a second time."""
    work()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def experience(training: GRPOTrainer) -> Experience:
    """Completions that are as long as they may be, and all teach."""
    settings = training.settings
    rows, length = 4 * settings.group_size, settings.max_completion_length
    plan = training.policy.sampling_plan()
    tokens = torch.randint(2, 60, (rows, length))
    rollout = as_rollout([(3,) * PROMPT] * 4, tokens, torch.full((rows, length), -4.0), plan)
    rollout = replace(rollout, ended=torch.ones(rows, dtype=torch.bool))
    worth = torch.linspace(-1, 1, rows)
    return Experience(rollout, RewardResult(np.zeros(rows), {}), worth)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells of peaks")
@pytest.mark.parametrize("name", SHAPES)
def test_a_plain_round_takes_what_was_foretold(name: str) -> None:
    training = trainer(name)
    said, policy = foretold(training.policy, PROMPT), training.policy
    learned = experience(training)
    taken = peak(lambda: training.updater.update(learned))
    print(name, "update", said.update / 2**20, taken / 2**20)
    assert taken / TIMES <= said.update <= taken * TIMES
    if name == "deep":
        prompts = [(3,) * PROMPT] * 4
        taken = peak(lambda: policy.rollout(prompts, policy.sampling_plan()))
        print(name, "sampling", said.sampling / 2**20, taken / 2**20)
        assert taken / TIMES <= said.sampling <= taken * TIMES


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells of peaks")
@pytest.mark.parametrize("name", SHAPES)
def test_gradients_by_prompt_take_what_was_foretold(name: str) -> None:
    training = trainer(name)
    policy, settings = training.policy, training.settings
    layout = replace(Layout.of(settings, PROMPT), columns=1024)
    said, adapter = foretold_apart(policy, layout), policy.adapter
    shape = max(layout.teaching_shapes(), key=lambda s: layout.side(s) * (s.width + s.span))
    side = layout.side(shape)
    batch = teaching_batch([None] * side, shape, settings, 0)
    parameters = list(adapter.trainable.values())

    def learn() -> None:
        row_gradients(
            adapter.causal, parameters, lambda: batch_loss(adapter.causal, batch, settings), side
        )

    taken = peak(learn)
    print(name, "apart", said.update / 2**20, taken / 2**20)
    assert taken / TIMES <= said.update <= taken * TIMES


def test_what_does_not_fit_is_refused_with_the_part_that_is_too_large() -> None:
    Forecast(3, 4, 0, 4).check(private=False)
    with pytest.raises(ModelError, match=r"update 3\.0, evaluation 1\.0") as why:
        Forecast(2**30, 3 * 2**30, 2**30, 2**31).check(private=False)
    assert "2.0 GiB are free" in str(why.value)
    assert "gradient_checkpointing" in why.value.cure
    with pytest.raises(ModelError) as why:
        Forecast(0, 1, 3, 2).check(private=True)
    assert "evaluation.prompts" in why.value.cure
    assert "gradient_checkpointing" not in why.value.cure
