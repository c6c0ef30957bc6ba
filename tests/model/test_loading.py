"""No code of a model runs, and no weight is made up, whatever a folder holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from fedgrpo.ground.errors import ModelError, RewardError
from fedgrpo.model.base import TINY, check_context, load_base
from fedgrpo.model.dimension import adapter_dimension
from fedgrpo.rewards.judges.reward_model import RewardModel
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings
from tests.models import tiny_base

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model, to be spoilt."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(prompt: str = "") -> NoReturn:
        raise AssertionError(f"somebody was asked: {prompt}")

    monkeypatch.setattr("builtins.input", asked)


def settings(folder: Path) -> ModelSettings:
    return ModelSettings(name=str(folder), device="cpu")


def edit(path: Path, **changed: object) -> None:
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(tree | changed))


def spoil(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a checkpoint."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def with_code(folder: Path, file: str, tree: dict[str, object]) -> Path:
    """Name code that leaves a mark when it is imported; return where the mark would be."""
    mark = folder.parent / "code-was-run"
    for name in ("configuration_own.py", "modeling_own.py", "tokenization_own.py"):
        (folder / name).write_text(f"from pathlib import Path\n\nPath({str(mark)!r}).touch()\n")
    edit(folder / file, **tree)
    return mark


CODE = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
PLACES: dict[str, tuple[str, dict[str, object]]] = {
    "unknown type": ("config.json", {"model_type": "own", "auto_map": CODE}),
    "known type": ("config.json", {"auto_map": CODE}),
    "in a part": ("config.json", {"text_config": {"deeper": [{"auto_map": CODE}]}}),
    "empty": ("config.json", {"auto_map": {}}),
    "another file": ("config.json", {"configuration_files": ["config.4.0.0.json"]}),
    "tokenizer": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}},
    ),
    "generation": ("generation_config.json", {"auto_map": CODE}),
    "kernel": ("config.json", {"attn_implementation": "some/kernel"}),
    "kernel of a part": ("config.json", {"attn_implementation": {"text_config": "some/kernel@v1"}}),
    "kernel, as kept": ("config.json", {"text_config": {"_attn_implementation": "some/kernel:f"}}),
    "experts": ("config.json", {"experts_implementation": "some/kernel"}),
    "processor": ("processor_config.json", {"auto_map": {"AutoProcessor": "modeling_own.Own"}}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_model_that_brings_code_is_refused_and_nothing_is_run(folder: Path, place: str) -> None:
    file, tree = PLACES[place]
    mark, key = (
        with_code(folder, file, tree),
        r"(auto_map|configuration_files|_?\w+_implementation)",
    )
    for load in (
        lambda: load_base(settings(folder)),
        lambda: load_base(settings(folder), any_weights=True),
        lambda: adapter_dimension(settings(folder), AdapterSettings()),
    ):
        with pytest.raises(ModelError, match=f"brings code of its own: {file} has {key}"):
            load()
    with pytest.raises(RewardError, match="brings code of its own"):
        RewardModel(str(folder), "cpu")
    assert not mark.exists()


def test_an_adapters_folder_that_sends_the_loader_to_its_base_is_refused(folder: Path) -> None:
    """Transformers would load whatever model ``adapter_config.json`` names, with its code."""
    edit(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="some/where")
    with pytest.raises(ModelError, match=r"adapter_config\.json names its base"):
        load_base(settings(folder))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"])
def test_a_configuration_that_is_no_json_is_refused_by_name(folder: Path, text: str) -> None:
    (folder / "tokenizer_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is no JSON"):
        load_base(settings(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_configuration_that_is_no_object_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_text("[1]")
    with pytest.raises(ModelError, match=rf"{name} is no JSON object but a list"):
        load_base(settings(folder))


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_tokenizer_that_was_cut_off_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match=r"tokenizer\.json is incomplete or damaged"):
        load_base(settings(folder))


# Weights


class Call:
    """A pickle that calls a function when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return self.mark.touch, ()


def as_pickle(folder: Path, name: str = "pytorch_model.bin") -> None:
    torch.save(load_file(folder / WEIGHTS), folder / name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.ckpt", "weights.pkl"])
def test_weights_that_can_hold_code_are_refused_unless_the_site_allows_them(
    folder: Path, name: str
) -> None:
    as_pickle(folder, name)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=f"weights in {name}, a format that can hold code") as why:
        load_base(settings(folder))
    assert "safe_serialization=True" in why.value.cure
    assert "any_weights = true" in why.value.cure


def test_a_site_that_allows_any_weights_reads_a_pickle_as_data(folder: Path) -> None:
    as_pickle(folder)
    (folder / WEIGHTS).unlink()
    loaded = load_base(settings(folder), any_weights=True)
    assert loaded.fingerprint == tiny_base().fingerprint


@pytest.mark.parametrize("allowed", [False, True])
def test_no_pickle_is_ever_run(folder: Path, allowed: bool) -> None:
    mark = folder.parent / "pickle-was-run"
    (folder / WEIGHTS).unlink()
    torch.save({"x": Call(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded" if allowed else "can hold code"):
        load_base(settings(folder), any_weights=allowed)
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_not_read(folder: Path) -> None:
    mark = folder.parent / "pickle-was-run"
    torch.save({"x": Call(mark)}, folder / "pytorch_model.bin")
    assert load_base(settings(folder)).fingerprint == tiny_base().fingerprint
    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 7, 5_000, -1])
def test_a_checkpoint_that_was_cut_off_is_named(folder: Path, kept: int) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is incomplete or damaged") as caught:
        load_base(settings(folder))
    assert "again" in caught.value.cure


@pytest.mark.slow
def test_parameters_that_a_checkpoint_lacks_are_named_and_not_made_up(folder: Path) -> None:
    gone = "model.layers.1.mlp.up_proj.weight"
    spoil(folder, lambda tensors: tensors.pop(gone))
    with pytest.raises(ModelError, match=f"not in its checkpoint: {gone}"):
        load_base(settings(folder))


def test_only_the_first_of_many_missing_parameters_are_named(folder: Path) -> None:
    spoil(folder, lambda tensors: [tensors.pop(n) for n in list(tensors) if "layers.1" in n])
    with pytest.raises(ModelError, match=r"not in its checkpoint: (\S+, ){4}\S+ and \d more"):
        load_base(settings(folder))


def test_what_a_checkpoint_holds_beyond_the_model_is_told_in_our_own_words(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(folder, lambda tensors: tensors.update({"model.layers.9.extra": torch.ones(2)}))
    assert load_base(settings(folder)).fingerprint == tiny_base().fingerprint
    assert [record.name for record in caplog.records] == ["fedgrpo.model.loading"]
    assert "no place for model.layers.9.extra of its checkpoint" in caplog.text


def test_a_parameter_of_another_shape_is_refused(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    spoil(folder, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    with pytest.raises(ModelError, match=f"another shape in its checkpoint .*: {name} ") as caught:
        load_base(settings(folder))
    assert "config.json" in caught.value.cure


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_parameter_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    spoil(folder, lambda tensors: tensors[name].__setitem__((3, 5), value))
    with pytest.raises(ModelError, match=f"not finite in its checkpoint: {name}"):
        load_base(settings(folder))


def test_a_reward_model_whose_head_would_be_made_up_is_refused(folder: Path) -> None:
    with pytest.raises(RewardError, match=r"not in its checkpoint: score\.weight"):
        RewardModel(str(folder), "cpu")


# What does not fit together


def test_a_tokenizer_with_more_tokens_than_the_model_has_embeddings_is_refused(
    folder: Path,
) -> None:
    tokenizer, rows = tiny_base().tokenizer, len(tiny_base().tokenizer)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=f"has {rows} embeddings, its tokenizer {rows + 2} tokens"):
        load_base(settings(folder))


def test_prompt_and_completion_are_held_against_positions_that_end(folder: Path) -> None:
    torch.manual_seed(0)
    size = len(tiny_base().tokenizer)
    config = GPT2Config(
        vocab_size=size, n_embd=8, n_layer=1, n_head=2, n_positions=16, eos_token_id=1
    )
    (folder / "generation_config.json").unlink(missing_ok=True)
    GPT2LMHeadModel(config).save_pretrained(folder)
    base = load_base(settings(folder))
    check_context(base, GRPOSettings(max_prompt_length=8, max_completion_length=8))
    with pytest.raises(ModelError, match="= 17 is more than the 16 positions") as caught:
        check_context(base, GRPOSettings(max_prompt_length=8, max_completion_length=9))
    assert "lower them to 16 together" in caught.value.cure
    # Rotary positions do not end.
    check_context(tiny_base(), GRPOSettings(max_prompt_length=10**6))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model_type": "brand_new", "architectures": ["BrandNewForCausalLM"]}, "brand_new"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "optimum|gptq"),
        ({"hidden_size": "many"}, "hidden_size"),
    ],
    ids=["type", "quantised", "nonsense"],
)
def test_why_a_model_cannot_be_loaded_is_told(
    folder: Path, changed: dict[str, object], told: str
) -> None:
    edit(folder / "config.json", **changed)
    with pytest.raises(ModelError, match=told) as caught:
        load_base(settings(folder))
    assert caught.value.cure


def test_a_file_is_told_from_a_folder() -> None:
    with pytest.raises(ModelError, match="is a file") as caught:
        load_base(settings(TINY / WEIGHTS))
    assert "folder" in caught.value.cure
