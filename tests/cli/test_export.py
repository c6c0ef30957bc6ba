"""``fedgrpo export``: a run's adapter in forms that others take, each the same model."""

import json
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import Settings
from fedgrpo.standalone import train
from tests.model.export.tiny_llama import CHAT, write_model
from tests.models import stirred
from tests.standalone.scenario import VARIED

LENGTH = "Content-Length"
IDS = torch.tensor([[5, 9, 17, 26, 44, 8]])
SHORT = {
    "rounds": 1,
    "grpo.prompts_per_step": 2,
    "grpo.group_size": 4,
    "grpo.max_completion_length": 4,
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
    Path("varied.py").write_text(VARIED)
    Path("mine.toml").write_text(
        '[reward]\nfunctions = "varied.py:varied"\n[grpo]\noverlong_share = 0.5'
    )
    train(Path("mine.toml"), overrides=SHORT | {"model.name": "base"})
    # So short a run leaves B at zero, which would hide every mistake.
    moved = stirred(Adapter.from_settings(Settings.from_mapping({"model": {"name": "base"}})))
    moved.save(tmp_path / "moved")
    weights = "adapter_model.safetensors"
    shutil.copy(tmp_path / "moved" / weights, tmp_path / "out" / "adapter" / weights)
    return tmp_path / "out"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_family_that_gguf_does_not_know_is_refused_before_anything_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setattr("fedgrpo.model.export.gguf_file.PERMUTED", {"qwen2": False})
    Path("model.gguf").write_text("of another day")
    status, said = invoke(run, "--merged", "merged", "--gguf", "model.gguf")
    assert status == 2
    assert "model type 'llama' is none that can be written as GGUF here" in said
    assert not Path("merged").exists()
    assert Path("model.gguf").read_text() == "of another day"


@pytest.mark.slow
def test_another_base_under_the_same_name_is_refused(run: Path) -> None:
    config = json.loads((run.parent / "base/config.json").read_text())
    torch.manual_seed(1)
    other = LlamaConfig.from_dict(config)
    AutoModelForCausalLM.from_config(other).save_pretrained(run.parent / "base")
    status, said = invoke(run, "--merged", "merged")
    assert status == 2
    assert "another model than this adapter was trained on" in said
    assert not Path("merged").exists()


@pytest.mark.slow
def test_the_hub_is_asked_for_a_private_repository_and_its_refusal_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers[LENGTH])))))
            self.send_response(403)
            self.send_header("X-Error-Message", "who are you?")
            self.send_header(LENGTH, "0")
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Hub)
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", place)
    Thread(target=server.serve_forever, daemon=True).start()
    status, said = invoke(run, "--hub", "me/mine")
    server.shutdown()
    server.server_close()
    assert status == 2
    assert "the Hub refuses me/mine: who are you?" in said
    ((path, body),) = asked
    assert path == "/api/repos/create"
    assert (body["name"], body["organization"]) == ("mine", "me")
    assert body.get("private") is True or body.get("visibility") == "private"
    assert "write OWNER/NAME" in invoke(run, "--hub", "a/b/c")[1]


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path) -> None:
    assert "no form is asked for" in invoke(run)[1]
    assert "holds no run" in invoke(tmp_path, "--merged", "x")[1]
    weights = run / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "adapter_model.safetensors cannot be read" in invoke(run, "--merged", "x")[1]
    pytest.importorskip("gguf")
    assert "there is no folder" in invoke(run, "--merged", "x", "--gguf", "nowhere/a.gguf")[1]
    assert "is a folder" in invoke(run, "--merged", "x", "--gguf", run)[1]
    assert not Path("x").exists()  # One form was in order, and nothing of it was begun.
    (run / "adapter" / "adapter_config.json").unlink()
    assert "finish the run" in invoke(run, "--merged", "x")[1]
