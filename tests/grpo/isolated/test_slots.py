"""A turn of the slots is what a CUDA graph can replay; and replayed, on buffers that an earlier
batch left full, it draws what it draws step by step.
"""

import gc
import weakref

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fedgrpo.grpo.isolated import sampling, slots
from fedgrpo.grpo.isolated.sampling import sample_grid
from fedgrpo.grpo.isolated.slots import Sampled, SamplingShape, Slots
from fedgrpo.grpo.rollout.choice.drawing import uniforms
from fedgrpo.grpo.rollout.choice.warping import Warping
from fedgrpo.grpo.rollout.sampling import SamplingPlan
from tests.models import random_llama
from tests.recorded import WAITS, Called

PROMPTS = [[5, 6, 7], [9, 4, 4, 8, 2, 11], [3], [12, 13, 14, 15]]
SHAPE = SamplingShape(8, 2, 6)
PLAIN = SamplingPlan(3, 8, 1.0, (1, 7), 0)
KNOBS = SamplingPlan(3, 8, 1.0, (1, 7), 0, warping=Warping(top_k=9, repetition_penalty=1.3))


def points(prompts: int) -> Tensor:
    """What each token of three completions a prompt is drawn by."""
    drawn = uniforms((3 * prompts, 8), torch.Generator().manual_seed(prompts))
    return drawn.view(prompts, 3, 8)


def sampled(model: object, prompts: list[list[int]], plan: SamplingPlan) -> Sampled:
    return sample_grid(model, prompts, points(len(prompts)), SHAPE, plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [PLAIN, KNOBS], ids=["plain", "knobs"])
def test_replayed_slots_draw_the_same(monkeypatch: pytest.MonkeyPatch, plan: SamplingPlan) -> None:
    model = random_llama()
    eager = [sampled(model, PROMPTS[:count], plan) for count in (4, 2, 3)]
    # As on a GPU: kept, looked at now and then; a replay on a CPU runs the turn.
    for module in (sampling, slots):
        monkeypatch.setattr(module, "is_captured", lambda _: True)
    for count, before in zip((4, 2, 3), eager, strict=True):
        after = sampled(model, PROMPTS[:count], plan)
        assert torch.equal(after.tokens, before.tokens)
        assert torch.equal(after.logps, before.logps)
        assert torch.equal(after.ended, before.ended)
        assert after.sound.all()


@torch.no_grad()
def test_buffers_go_with_the_last_who_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the garbage collector, which knows nothing of their size; of those that are captured
    a model keeps one set.
    """
    made: list[weakref.ref[Slots]] = []
    plain = Slots.run

    def run(slots: Slots, *args: object) -> Sampled:
        made.append(weakref.ref(slots))
        return plain(slots, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Slots, "run", run)
    model = random_llama()
    gc.disable()
    try:
        sampled(model, PROMPTS, PLAIN)
        assert made[0]() is None
        for module in (sampling, slots):
            monkeypatch.setattr(module, "is_captured", lambda _: True)
        for plan in (PLAIN, PLAIN, KNOBS):
            sampled(model, PROMPTS, plan)
    finally:
        gc.enable()
    assert [each() is None for each in made[1:]] == [True, True, False]


@torch.no_grad()
@pytest.mark.parametrize("plan", [PLAIN, KNOBS], ids=["plain", "knobs"])
def test_a_turn_moves_no_buffer_and_waits_for_nothing(plan: SamplingPlan) -> None:
    model = random_llama()
    seen = sampling._prefilled(model, PROMPTS[:2], SHAPE, 0)
    made = Slots(model, SHAPE, plan, seen, 6)
    made.run(seen, points(2).flatten(0, 1), None)
    buffers = [*made.state(), *(buffer for layer in made.layers for buffer in layer.buffers)]
    before = [buffer.data_ptr() for buffer in buffers]
    with Called() as called:
        for _ in range(3):
            made.turn()
    after = [*made.state(), *(buffer for layer in made.layers for buffer in layer.buffers)]
    assert [buffer.data_ptr() for buffer in after] == before
    assert not [name for name in called.names if any(wait in name for wait in WAITS)]
    assert any("index_put" in name for name in called.names), "the mode sees the turn"


@pytest.mark.parametrize("kind", ["default", "linear", "dynamic"])
def test_a_model_whose_pass_waits_for_the_device_is_known(kind: str) -> None:
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    small = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig.from_dict({**small, "num_attention_heads": 2, "rope_parameters": rope})
    model = LlamaForCausalLM(config)
    with Called() as called, torch.no_grad():
        model(torch.ones(1, 3, dtype=torch.long), position_ids=torch.arange(3)[None])
    waited = any("_local_scalar_dense" in name for name in called.names)
    assert slots.waits(model) == (kind == "dynamic") == waited
