"""A personal adapter: over the shared one, which stays as it is, and for no round."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest
import torch
from peft import set_peft_model_state_dict
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.cli.runs.handed_on import hand_on
from fedgrpo.ground.errors import AdapterError, RunError, SettingsError
from fedgrpo.report.reader import read_rows
from fedgrpo.standalone import train
from fedgrpo.standalone.chosen import Chosen, on_top
from fedgrpo.standalone.personal import keep_shared, personalise
from tests.standalone.scenario import VARIED, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shared run, and a site's prompts."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "varied.py").write_text(VARIED)
    lines = [json.dumps({"prompt": f"sort {n:03d}=", "answer": "1"}) for n in range(40)]
    (folder / "own.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        moving = {"reward.functions": "varied.py:varied", "grpo.learning_rate": 0.05, "rounds": 3}
        train(write(folder), overrides=moving, console=quiet())
    return folder


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def quiet() -> Console:
    return Console(file=io.StringIO())


def own(name: str, steps: int = 2, shared: str = "runs/small") -> Path:
    return personalise(Path(shared), "own.jsonl", steps=steps, run_dir=Path(name), console=quiet())


def logits(causal: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = causal(torch.arange(3, 11)[None]).logits
    return made


def test_it_lies_on_the_shared_adapter_which_stays_as_it_is(home: Path) -> None:
    before = (home / "runs/small/adapter/adapter_model.safetensors").read_bytes()
    chosen = Chosen.of(home / "runs/small", best=False)
    alone = chosen.fresh()
    base = logits(alone.causal)
    set_peft_model_state_dict(alone.model, load_file(chosen.adapter / "adapter_model.safetensors"))
    shared = logits(alone.causal)
    assert not torch.allclose(shared, base, atol=1e-3), "the shared adapter does nothing"
    assert torch.allclose(logits(on_top(chosen).causal), shared, atol=1e-4)
    made = own("runs/own")
    assert read_rows(made)[0].kl_base == 0
    assert (home / "runs/small/adapter/adapter_model.safetensors").read_bytes() == before
    assert (made / "adapter-shared" / "adapter_model.safetensors").read_bytes() == before
    assert chosen.below is None
    assert Chosen.of(made, best=False).below == made / "adapter-shared"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert "lies over the shared one" in (made / "adapter" / "README.md").read_text()


def test_no_round_takes_it_for_a_shared_one(home: Path) -> None:
    shared = Chosen.of(home / "runs/small", best=False)
    personal, fresh = on_top(shared), shared.fresh()
    assert personal.dimension == fresh.dimension
    with pytest.raises(AdapterError, match="another layout"):
        fresh.check(personal.state())
    with pytest.raises(AdapterError, match="another layout"):
        personal.check(fresh.state())


def test_it_is_handed_on_with_the_shared_one_under_it_and_never_to_the_hub(home: Path) -> None:
    made = own("runs/handed")
    chosen = Chosen.of(made, best=False)
    list(hand_on(chosen, merged=Path("merged"), gguf=None, hub=""))
    whole = logits(AutoModelForCausalLM.from_pretrained("merged"))
    both = chosen.fresh()
    shared = logits(both.causal)
    set_peft_model_state_dict(both.model, load_file(made / "adapter/adapter_model.safetensors"))
    assert not torch.allclose(logits(both.causal), shared, atol=1e-3), "the personal one is nothing"
    assert torch.allclose(whole, logits(both.causal), atol=1e-4)
    with pytest.raises(SettingsError, match="as private as the prompts"):
        list(hand_on(chosen, merged=None, gguf=None, hub="me/mine"))


def test_a_personal_run_cannot_be_shared_and_another_shared_one_is_not_continued(
    home: Path,
) -> None:
    made = own("runs/first", steps=1)
    with pytest.raises(RunError, match="is itself personal"):
        own("runs/second", shared="runs/first")
    with pytest.raises(RunError, match="another shared adapter"):
        keep_shared(made / "adapter", made)
    result = CliRunner().invoke(app, ["personalise", "runs/none", "--prompts", "own.jsonl"])
    assert result.exit_code == 2
