"""Scenario files and what the command line puts in their place."""

from pathlib import Path

import pytest

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario, settings_from


def test_an_override_mends_what_the_file_alone_could_not_be(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[grpo]\nsteps = 4\n")
    with pytest.raises(SettingsError, match=r"grpo\.steps = 4"):
        load_scenario(path, {}, tmp_path)
    assert load_scenario(path, {"privacy.unit": "none"}, tmp_path).grpo.steps == 4


def test_a_preset_may_come_from_the_command_line_and_the_file_still_wins(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[grpo]\nclip_high = 0.5\n[privacy]\nunit = 'none'\n")
    settings = load_scenario(path, {"grpo.preset": "dapo"}, tmp_path)
    assert (settings.grpo.loss, settings.grpo.clip_high) == ("dapo", 0.5)


def test_a_section_in_the_place_of_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("rounds = 3\n")
    with pytest.raises(SettingsError, match="rounds"):
        load_scenario(path, {"rounds.x": 3}, tmp_path)


def test_python_gives_settings_as_they_are_nested_dotted_or_by_path(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("rounds = 3\n[data]\nsource = 'mine.jsonl'\n")
    nested = {
        "rounds": 3,
        "data": {"split": "x"},
        "data.source": "mine.jsonl",
        "data.split": "train",
    }
    read = [settings_from(s, tmp_path) for s in (path, str(path), nested, Settings.from_toml(path))]
    assert {settings.fingerprint() for settings in read} == {read[0].fingerprint()}
    assert read[0].data.source == str(tmp_path / "mine.jsonl")
    assert nested["data"] == {"split": "x"}, "what the caller gave stays as it is"
    with pytest.raises(SettingsError, match="unknown setting data\\.sauce"):
        settings_from({"data.sauce": 1}, tmp_path)
