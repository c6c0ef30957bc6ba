from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fedgrpo.federation.server.evaluator import LocalEvaluator
from fedgrpo.ground.errors import ModelError
from fedgrpo.model.base import TINY, load_base
from fedgrpo.settings import ModelSettings, Settings
from tests.models import tiny_base


def test_shipped_base_is_small_enough_to_ship() -> None:
    assert (TINY / "model.safetensors").stat().st_size <= 2 * 2**20


def test_tokenizer_brings_every_task_back_unchanged() -> None:
    tokenizer = tiny_base().tokenizer
    text = "max 3,14,15= sort 0918= rev abcdefgh= 99+1="
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_skill_of_the_shipped_base_hardly_shows() -> None:
    """Greedy decoding must not find the skill for free: a wrong habit is the most likely answer."""
    settings = Settings.from_mapping({"evaluation": {"prompts": 300}})
    evaluator = LocalEvaluator(settings)
    start = evaluator.evaluate(evaluator.initial())
    assert 0.1 <= start.sampled <= 0.3
    assert start.greedy <= 0.3
    assert start.kl_base == pytest.approx(0.0, abs=1e-6)


def test_same_model_has_one_fingerprint_in_both_precisions_and_another_has_another(
    tmp_path: Path,
) -> None:
    half = load_base(ModelSettings(dtype="bfloat16", device="cpu"))
    assert half.model.dtype == torch.bfloat16
    assert half.fingerprint == tiny_base().fingerprint
    other = AutoModelForCausalLM.from_pretrained(str(TINY))
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    other.save_pretrained(tmp_path)
    tiny_base().tokenizer.save_pretrained(tmp_path)
    assert load_base(ModelSettings(name=str(tmp_path))).fingerprint != half.fingerprint


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder"])
def test_path_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError, match=r"no/such/folder.*does not exist"):
        load_base(ModelSettings(name=name))


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_base(ModelSettings(name=str(tmp_path)))


def test_missing_gpu_is_said_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"set model\.device = 'auto'"):
        load_base(ModelSettings(device="cuda"))
