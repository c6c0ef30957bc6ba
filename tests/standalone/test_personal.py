"""A personal adapter: over the shared one, which stays as it is, and for no round."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.cli.runs.handed_on import hand_on
from fedgrpo.ground.errors import AdapterError, RunError, SettingsError
from fedgrpo.report.reader import read_rows, read_run
from fedgrpo.standalone import train
from fedgrpo.standalone.chosen import Chosen, on_top
from fedgrpo.standalone.personal import personalise
from tests.standalone.scenario import VARIED, vectors, write

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
        train(write(folder), overrides={"reward.functions": "varied.py:varied"}, console=quiet())
    return folder


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def quiet() -> Console:
    return Console(file=io.StringIO())


def own(name: str, steps: int = 2, shared: str = "runs/small") -> Path:
    return personalise(Path(shared), "own.jsonl", steps=steps, run_dir=Path(name), console=quiet())


def test_it_begins_as_the_shared_adapter_alone_which_stays_as_it_is(home: Path) -> None:
    before = (home / "runs/small/adapter/adapter_model.safetensors").read_bytes()
    made = own("runs/own")
    chosen = Chosen.of(home / "runs/small", best=False)
    # Its first measurement is that of the shared adapter on the site's prompts.
    alone = train(
        write(home),
        prompts="own.jsonl",
        overrides={"reward.functions": "varied.py:varied", "rounds": 1},
        run_dir=Path("runs/alone"),
        console=quiet(),
    )
    first, unshared = read_rows(made)[0], read_rows(alone)[0]
    assert first.kl_base == 0
    assert first.sampled != unshared.sampled, "the shared adapter is not under it"
    assert (home / "runs/small/adapter/adapter_model.safetensors").read_bytes() == before
    kept = made / "adapter-shared" / "adapter_model.safetensors"
    assert kept.read_bytes() == before
    assert chosen.below is None
    assert Chosen.of(made, best=False).below == made / "adapter-shared"


def test_no_round_takes_it_for_a_shared_one(home: Path) -> None:
    shared = Chosen.of(home / "runs/small", best=False)
    personal, fresh = on_top(shared), shared.fresh()
    assert personal.dimension == fresh.dimension
    with pytest.raises(AdapterError, match="another layout"):
        fresh.check(personal.state())
    with pytest.raises(AdapterError, match="another layout"):
        personal.check(fresh.state())


def test_its_directory_is_its_owners_alone(home: Path) -> None:
    made = own("runs/closed", steps=1)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_it_is_handed_on_with_the_shared_one_under_it_and_never_to_the_hub(home: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = own("runs/handed", steps=2)
    chosen = Chosen.of(made, best=False)
    list(hand_on(chosen, merged=Path("merged"), gguf=None, hub=""))
    whole = dict(AutoModelForCausalLM.from_pretrained("merged").named_parameters())
    shared = Chosen.of(home / "runs/small", best=False).fresh().base.model
    moved = [
        name for name, base in shared.named_parameters() if not base.equal(whole.get(name, base))
    ]
    for factors in (vectors(made / "adapter"), vectors(made / "adapter-shared")):
        assert any(abs(values).max() > 0 for name, values in factors.items() if "lora_B" in name)
    assert moved
    with pytest.raises(SettingsError, match="as private as the prompts"):
        list(hand_on(chosen, merged=None, gguf=None, hub="me/mine"))


def test_a_personal_run_cannot_be_shared_and_another_shared_one_is_not_continued(
    home: Path,
) -> None:
    own("runs/first", steps=1)
    with pytest.raises(RunError, match="is itself personal"):
        own("runs/second", shared="runs/first")
    (home / "runs/third").mkdir()
    result = CliRunner().invoke(app, ["personalise", "runs/none", "--prompts", "own.jsonl"])
    assert result.exit_code == 2
    assert read_run(Path("runs/first")).summary is not None
