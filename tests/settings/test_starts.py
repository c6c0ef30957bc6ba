"""Starting points for kinds of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario, settings_from
from fedgrpo.settings.starts import STARTS

EACH = [(name, unit) for name, units in STARTS.items() for unit in units]


@pytest.mark.parametrize(("name", "unit"), EACH)
def test_every_starting_point_is_settings_that_can_be_read(name: str, unit: str) -> None:
    made = settings_from({"start": name, "privacy.unit": unit, "privacy.max_epsilon": 1e6}, Path())
    flat = made.to_run_config()
    for section, values in STARTS[name][unit].items():
        for key, value in values.items():
            assert flat[f"{section}.{key}"] == value


def test_what_a_scenario_or_an_override_sets_goes_before_the_starting_point(
    tmp_path: Path,
) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text('start = "language_model"\n[adapter]\nrank = 3\n[privacy]\nunit = "none"')
    made = load_scenario(scenario, {"server.learning_rate": 0.5}, tmp_path)
    assert made.adapter.rank == 3
    assert made.server.learning_rate == 0.5
    assert made.adapter.kind == STARTS["language_model"]["none"]["adapter"]["kind"]


def test_a_scenario_that_names_a_starting_point_is_read_as_settings_too(tmp_path: Path) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text('start = "language_model"\n[privacy]\nunit = "none"')
    assert Settings.from_toml(scenario) == load_scenario(scenario, {}, tmp_path)


def test_a_unit_that_nothing_was_measured_for_is_refused() -> None:
    with pytest.raises(SettingsError, match="none and prompt, not client"):
        settings_from({"start": "language_model", "privacy.unit": "client"}, Path())


def test_what_travels_names_no_starting_point() -> None:
    made = settings_from({"start": "language_model"}, Path())
    assert Settings.from_run_config(made.to_run_config()) == made
    assert "start" not in made.to_run_config()


@pytest.mark.parametrize("name", ["large", "", 3, ["language_model"]])
def test_an_unknown_starting_point_is_refused_by_its_name(name: object) -> None:
    with pytest.raises(SettingsError, match=r"(?s)is no starting point.*language_model"):
        settings_from({"start": name}, Path())
