"""What the README tells people to type works as it stands there."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_settings_are_valid() -> None:
    (text,) = blocks("toml")
    settings = Settings.from_mapping(tomllib.loads(text))
    assert settings.reward.functions == ("rewards.py:correct", "rewards.py:short")


def test_the_example_rewards_judge_chat_completions() -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    mixture = RewardMixture([("correct", names["correct"], 1.0), ("short", names["short"], 0.2)])
    said = [[{"role": "assistant", "content": text}] for text in ("42", "no " * 1000)]
    result = mixture([[{"role": "user", "content": "?"}]] * 2, said, {"answer": ["42", "42"]})
    assert result.total.tolist() == pytest.approx([1.0 + 0.2 * 0.998, 0.0])


@pytest.mark.slow
def test_the_example_federation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[1].replace('"rounds": 3', '"rounds": 1'), {})
    assert "Result(1 of 1 rounds applied, sampled" in capsys.readouterr().out
    assert (tmp_path / "adapter" / "adapter_config.json").exists()


@pytest.mark.slow
def test_the_example_trainer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[2].replace("steps=50", "steps=2"), {})
    assert capsys.readouterr().out.count("reward 0.") == 2
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_every_link_leads_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("simulations/*.toml")), ids=lambda p: p.stem)
def test_every_scenario_is_valid(path: Path) -> None:
    assert Settings.from_toml(path).rounds >= 1
