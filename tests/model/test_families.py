"""Every family trains as it samples, or is refused at load by its type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fedgrpo.ground.errors import AdapterError, ModelError
from fedgrpo.grpo.isolated.engine import Engine
from fedgrpo.grpo.isolated.proof import prove_isolation
from fedgrpo.grpo.isolated.shapes import Layout
from fedgrpo.grpo.rollout.divergence import k3
from fedgrpo.grpo.rollout.packing import pack
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.model.base import check_context, load_base
from fedgrpo.model.family.row_gradients import hookable, row_gradients
from fedgrpo.model.family.targets import is_router
from fedgrpo.model.kernels.attention import takes_any_mask
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings
from tests.model.families import EXPERTS, FAMILIES, family, multimodal, saved
from tests.models import graded, stirred

GRPO = GRPOSettings(group_size=4, max_prompt_length=16, max_completion_length=8, prompts_per_step=4)
PROMPTS = ((5, 6, 7), (9, 14, 4, 8, 12, 11, 20, 21, 22), (3,))
KEPT_APART = {"llama", "qwen3_moe", "gemma2"}
"""Of which the proof for prompt-level privacy is tried each time; of all others in the sweep."""


def policy(folder: str) -> Policy:
    base = load_base(ModelSettings(name=folder, device="cpu"))
    adapter = Adapter(base, AdapterSettings(kind="lora", rank=2))
    return Policy(stirred(adapter, 0.1), GRPO)


def scored(which: Policy, rollout: Rollout, *, packed: bool) -> torch.Tensor:
    """Log-probabilities under the update's pass, shape (P*G, T)."""
    rows, logps = range(len(rollout.tokens)), torch.zeros_like(rollout.logps)
    batches = (
        which.pack(rollout, rows)
        if packed
        else pack(rollout, rows, tokens_per_batch=10**6, max_row_tokens=1)
    )
    for batch in batches:
        logps[batch.completions] = which.logps(rollout, batch)
    return logps


@torch.no_grad()
def one_by_one(which: Policy, rollout: Rollout) -> torch.Tensor:
    """The same by the model's own logits, without padding, mask or cache."""
    logps = torch.zeros_like(rollout.logps)
    for row, ids in enumerate(completion_ids(rollout)):
        prompt = rollout.prompts[row // rollout.group_size]
        logits = which.adapter.causal(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
        behind = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
        logps[row, : len(ids)] = behind.gather(1, torch.tensor(ids)[:, None])[:, 0]
    return logps


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_from_what_it_sampled(name: str, tmp_path: Path) -> None:
    which = policy(saved(family(name), tmp_path / "model"))
    rollout = which.rollout(PROMPTS, which.sampling_plan())
    logps = scored(which, rollout, packed=True)
    mismatch = (k3(rollout.logps, logps.detach()) * rollout.mask).sum() / rollout.mask.sum()
    assert float(mismatch) < 1e-6
    for other in (scored(which, rollout, packed=False), one_by_one(which, rollout)):
        assert torch.allclose(logps, other, atol=1e-4)

    # What is trained is reached, and no router is.
    (logps * rollout.mask).sum().backward()
    for parameter_name, parameter in which.adapter.trainable.items():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().max()) > 0, parameter_name
        assert not is_router(parameter_name, torch.nn.Linear(1, 1)), parameter_name

    # PEFT alone makes the same of it.
    which.adapter.save(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    loaded = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, which.adapter.causal(ids).logits, atol=1e-4)


@pytest.mark.parametrize(
    "name", [n if n in KEPT_APART else pytest.param(n, marks=pytest.mark.soak) for n in FAMILIES]
)
def test_prompts_of_a_family_are_strangers_or_prompt_level_privacy_is_refused(
    name: str, tmp_path: Path
) -> None:
    which = policy(saved(family(name), tmp_path))
    several = hookable(which.adapter.causal, list(which.adapter.trainable.values()))
    layout = Layout.of(GRPO, 16, several=several)
    engine = Engine(which, RewardMixture([("graded", graded, 1.0)]), (), layout, row_gradients)
    if takes_any_mask(which.adapter.causal):
        prove_isolation(engine)
    else:
        kind = which.adapter.causal.config.model_type
        with pytest.raises(ModelError, match=f"models of type '{kind}' take no mask of ours"):
            prove_isolation(engine)


def test_windows_that_are_wider_than_every_row_are_none(tmp_path: Path) -> None:
    folder = saved(family("mistral", sliding_window=12), tmp_path)
    narrow, wide = (
        load_base(ModelSettings(name=folder, device="cpu"), longest=n).model for n in (13, 12)
    )
    assert not takes_any_mask(narrow)
    assert takes_any_mask(wide)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERTS)
def test_what_all_linear_leaves_out_is_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = load_base(ModelSettings(name=saved(family(name), tmp_path), device="cpu"))
    Adapter(base, AdapterSettings())
    (said,) = (r.getMessage() for r in caplog.records if "no adapter on" in r.getMessage())
    assert repr(name) in said
    assert "experts (" in said
    assert "routers (" in said


def test_a_router_that_is_named_is_refused(tmp_path: Path) -> None:
    base = load_base(ModelSettings(name=saved(family("qwen2_moe"), tmp_path), device="cpu"))
    with pytest.raises(AdapterError, match=r"names gate, which cannot .* \(routers\)"):
        Adapter(base, AdapterSettings(target_modules=("gate",)))


def test_layers_that_text_does_not_reach_carry_no_adapter(tmp_path: Path) -> None:
    base = load_base(ModelSettings(name=saved(multimodal(), tmp_path), device="cpu"))
    for names in (("all-linear",), ("q_proj", "v_proj")):
        adapter = Adapter(base, AdapterSettings(target_modules=names))
        assert all("language_model" in name for name in adapter.trainable)
    with pytest.raises(AdapterError, match="text does not reach"):
        Adapter(base, AdapterSettings(target_modules=("fc1",)))


def test_positions_of_a_tower_beside_the_text_end_nothing_for_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The tower's are learned; the text's are computed, and go on: told, and not refused."""
    base = load_base(ModelSettings(name=saved(multimodal(), tmp_path), device="cpu"), longest=4096)
    check_context(base, GRPOSettings(max_prompt_length=4000, max_completion_length=96))
    assert "= 4096 is more than the" in caplog.text


def test_a_model_whose_cache_forgets_is_refused_at_load_by_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(family("qwen3"), tmp_path)
    from transformers.models.qwen3 import modeling_qwen3

    forward = modeling_qwen3.Qwen3Model.forward

    def forgetting(self, input_ids=None, **given):  # type: ignore[no-untyped-def]
        if input_ids.shape[1] == 1:
            given.pop("past_key_values")
            given["attention_mask"] = None
        return forward(self, input_ids, **given)

    monkeypatch.setattr(modeling_qwen3.Qwen3Model, "forward", forgetting)
    with pytest.raises(ModelError, match=r"'qwen3' cannot be trained: .* another distribution"):
        load_base(ModelSettings(name=folder, device="cpu"))
