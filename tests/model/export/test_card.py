"""A card is valid, says how an adapter came about, and names nothing of this machine."""

import json
import math
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from fedgrpo.ground.records import Guarantee
from fedgrpo.model.export.card import RunFacts, hub_name, run_card, shown_part, write_card
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings, Settings
from tests.models import tiny_base


def settings(**changes: object) -> Settings:
    return Settings.from_mapping(changes)


HELD = [Guarantee(unit="prompt", adversary="everybody else", epsilon=4.561, delta=1e-5)]


def test_the_card_of_a_federation_says_how_it_was_trained_and_what_is_promised() -> None:
    named = ["/home/me/rewards.py:correct(k=2)", "exact_match"]
    mine = settings(
        model={"name": "some/base", "revision": "abc"},
        adapter={"rank": 4},
        reward={"functions": named, "weights": [1.0, 0.5], "maximum": 1.5},
    )
    text = run_card(RunFacts(settings=mine, rounds=7, privacy=HELD, root="ab:8"))
    data = ModelCard(text).data
    assert (data.base_model, data.library_name) == ("some/base", "peft")
    assert "federated-learning" in data.tags
    for said in (
        "some/base, revision abc", "FFA-LoRA (A is frozen), rank 4", "| Rounds | 7 |",
        "rewards.py:correct(k=2) (weight 1), exact_match (weight 0.5)", "advantage grpo",
        "epsilon 4.56 at delta 1e-05 for one prompt, against everybody else",
        "clipping: L2 norm 1 for one unit", "robust rule: trimmed_mean, trim 1", "`ab:8`",
    ):  # fmt: skip
        assert said in text
    assert "/home" not in text


def test_without_privacy_or_federation_the_card_says_so(tmp_path: Path) -> None:
    open_run = settings(privacy={"unit": "none"})
    assert "no differential privacy" in run_card(RunFacts(settings=open_run, rounds=1))
    write_card(tmp_path, RunFacts(settings=open_run, rounds=3, alone=True))
    card = ModelCard.load(tmp_path / "README.md")
    assert "without any privacy" in card.text
    assert "| Steps | 3 |" in card.text
    assert card.data.base_model is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("exact_match", "exact_match"),
        ("/a/b c, d/e.py:f(x='/g/h', y=[1])", "e.py:f(x='h', y=[1])"),
        ("my.package:f", "my.package:f"),
        ("f(x=__import__('os'))", "a part of its own"),
    ],
)
def test_parts_are_shown_without_folders(text: str, shown: str) -> None:
    assert shown_part(text) == shown


def test_folders_are_no_names_of_the_hub(tmp_path: Path) -> None:
    for name in ("tiny", str(tmp_path), "./here", "~/there"):
        assert hub_name(name) == ""
    assert hub_name("org/base") == "org/base"


@pytest.mark.parametrize("alpha", [16.0, 0.5])
def test_a_saved_adapter_has_whole_numbers_a_template_and_no_path(
    tmp_path: Path, alpha: float
) -> None:
    base = tiny_base()
    base.tokenizer.chat_template = "{{ messages[0]['content'] }}{{ strftime_now('%Y') }}"
    Adapter(base, AdapterSettings(kind="lora", alpha=alpha)).save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["lora_alpha"] == alpha
    assert isinstance(config["lora_alpha"], int) == (math.floor(alpha) == alpha)
    assert config["base_model_name_or_path"] is None
    assert (tmp_path / "chat_template.jinja").read_text() == base.tokenizer.chat_template
    written = "".join(path.read_text() for path in tmp_path.glob("*.[jm][sd]*"))
    assert str(Path(base.model.config._name_or_path).parent) not in written
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "peft"
