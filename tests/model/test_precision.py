"""Bases of other precisions: half, and fewer bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from fedgrpo.ground.errors import FedGRPOError, ModelError, SettingsError
from fedgrpo.grpo.isolated.engine import Engine
from fedgrpo.grpo.isolated.proof import prove_isolation
from fedgrpo.grpo.isolated.shapes import Layout
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.base import choose_device, load_base
from fedgrpo.model.family import precision
from fedgrpo.model.family.row_gradients import row_gradients
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings, Settings
from tests.models import graded, stirred

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


def gradient(dtype: str, share: float) -> torch.Tensor:
    """Of a mean over many tokens, of which these are ``share``."""
    base = load_base(ModelSettings(device="cpu", dtype=dtype))
    adapter = stirred(Adapter(base, AdapterSettings(kind="lora")))
    causal, parameters = adapter.causal, list(adapter.trainable.values())
    return row_gradients(
        causal, parameters, lambda: causal(IDS).logits.float().logsumexp(-1).sum() * share, 1
    )


def test_float16_loses_no_gradient_to_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = gradient("float32", 1e-6)
    ours = gradient("float16", 1e-6)
    monkeypatch.setattr(precision, "HALF_SCALE", 1.0)
    unscaled = gradient("float16", 1e-6)
    wrong, lost = ((found - exact).norm() / exact.norm() for found in (ours, unscaled))
    assert wrong < 0.02
    assert lost > 5 * wrong


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "gpu", "cuda:-1", "mps"])
def test_a_device_is_cpu_cuda_or_a_numbered_gpu(name: str) -> None:
    with pytest.raises((FedGRPOError, ValidationError)):
        ModelSettings(device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError, match=f"model.device = '{name}', but no GPU is visible"):
        choose_device(ModelSettings(device=name).device)


def test_quantised_weights_and_prompt_level_privacy_do_not_go_together() -> None:
    tree = {"model": {"quantise": "nf4"}, "privacy": {"unit": "prompt"}}
    with pytest.raises(SettingsError, match=r"model.quantise = 'nf4' cannot go with privacy.unit"):
        Settings.from_mapping(tree)


def test_without_the_library_quantised_weights_are_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="'int8' needs bitsandbytes and accelerate") as caught:
        load_base(ModelSettings(device="cpu", quantise="int8"))
    assert "fedgrpo[quantised]" in caught.value.cure


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_on_quantised_weights_the_adapter_is_float32_and_stays_unmerged(
    bits: str, tmp_path: Path
) -> None:
    base = load_base(ModelSettings(device="cpu", dtype="bfloat16", quantise=bits))
    first = stirred(Adapter(base, AdapterSettings(kind="lora")))
    assert first.quantised
    assert {p.dtype for p in first.trainable.values()} == {torch.float32}
    before = first.causal(IDS).logits
    with first.merged():
        assert torch.equal(first.causal(IDS).logits, before)
    stirred(Adapter(base, AdapterSettings()), 0.3)
    assert torch.equal(first.causal(IDS).logits, before)
    before.float().logsumexp(-1).sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in first.trainable.values())
    grpo = GRPOSettings(group_size=4, max_completion_length=6)
    mixture = RewardMixture([("graded", graded, 1.0)])
    engine = Engine(Policy(first, grpo), mixture, (), Layout.of(grpo, 16), row_gradients)
    with pytest.raises(ModelError, match="quantised weights"):
        prove_isolation(engine)
