"""``fedgrpo export``: a run's adapter in forms that others take, each the same model."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.model.base import TINY
from fedgrpo.standalone import train
from tests.model.export.tiny_llama import CHAT, write_model

IDS = torch.tensor([[5, 9, 17, 26, 44, 8]])
SHORT = {
    "rounds": 1,
    "grpo.prompts_per_step": 2,
    "grpo.group_size": 4,
    "grpo.max_completion_length": 4,
    "grpo.learning_rate": 0.1,
    "evaluation.prompts": 4,
    "run.directory": "out",
}


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run on a model with a chat template."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base", "llama", "qwen2")
    Path("mine.toml").write_text("")
    train(Path("mine.toml"), overrides=SHORT | {"model.name": "base"})
    return tmp_path / "out"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def test_every_form_is_the_model_that_was_trained(run: Path) -> None:
    pytest.importorskip("gguf")
    status, said = invoke(run, "--merged", "merged", "--gguf", "model.gguf")
    assert status == 0, said
    base = AutoModelForCausalLM.from_pretrained(run.parent / "base", dtype=torch.float32)
    before = logits(base)
    trained = logits(PeftModel.from_pretrained(base, str(run / "adapter")))
    merged = AutoModelForCausalLM.from_pretrained("merged", dtype=torch.float32)
    read = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf", dtype=torch.float32)
    assert not torch.allclose(before, trained, atol=1e-3)
    for form in (merged, read):
        assert torch.allclose(logits(form), trained, atol=1e-4)
    assert Path("merged/chat_template.jinja").read_text() == CHAT
    texts = [path.read_text() for path in Path("merged").glob("*.[jm][sd]*")]
    assert not [text for text in texts if str(run.parent) in text]
    assert "| Steps | 1 |" in Path("merged/README.md").read_text()
    assert "is not empty" in invoke(run, "--merged", "merged")[1]


def test_another_base_under_the_same_name_is_refused(run: Path) -> None:
    config = json.loads((run.parent / "base/config.json").read_text())
    torch.manual_seed(1)
    other = AutoModelForCausalLM.from_pretrained(TINY).config.__class__.from_dict(config)
    AutoModelForCausalLM.from_config(other).save_pretrained(run.parent / "base")
    status, said = invoke(run, "--merged", "merged")
    assert status == 2
    assert "another model than this adapter was trained on" in said
    assert not Path("merged").exists()


def test_the_hub_is_asked_once_and_its_silence_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.__init__.__defaults__", None, raising=False)
    assert "write OWNER/NAME" in invoke(run, "--hub", "a/b/c")[1]


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path) -> None:
    assert "no form is asked for" in invoke(run)[1]
    assert "holds no run" in invoke(tmp_path, "--merged", "x")[1]
    (run / "adapter" / "adapter_config.json").unlink()
    assert "finish the run" in invoke(run, "--merged", "x")[1]
