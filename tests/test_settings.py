"""Settings: bad ones are refused with name, value and cure, good ones survive every carrier."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation.wire.app_bundle import config_table, to_toml
from fedgrpo.ground.errors import MOVING, SettingsError
from fedgrpo.settings import RENAMED, Settings
from fedgrpo.settings.protocols.base import required_clients
from fedgrpo.settings.protocols.buckets import secret_threshold
from fedgrpo.settings.reading import ELSEWHERE
from fedgrpo.settings.reference import to_markdown
from tests.flat import flatten

ROOT = Path(__file__).parents[1]

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "rounds": st.integers(1, 1000),
        "model.name": st.text(st.characters(codec="utf-8"), min_size=1).filter(
            lambda name: not MOVING.search(name)
        ),
        "adapter.alpha": st.floats(0.1, 1e6),
        "data.tasks": st.sampled_from([("add",), ("add", "sort")]),
        "reward.minimum": st.floats(-10, 0.5),
        "privacy.unit": st.sampled_from(["none", "prompt", "client"]),
        "privacy.delta": st.floats(1e-12, 0.5),
        "server.final_rate": st.sampled_from([0, 0.0, 1, 1e-30]),
        "simulation.gpus_per_client": st.floats(0, 8),
    },
)


@pytest.mark.slow
@given(CHANGES)
def test_settings_survive_flowers_run_configuration(changes: dict[str, Any]) -> None:
    settings = Settings.from_run_config(Settings().to_run_config() | changes)
    arrived = flatten(tomllib.loads(to_toml(settings.to_run_config())))
    assert all(type(value) in {bool, int, float, str} for value in arrived.values())
    assert Settings.from_run_config(arrived) == settings


@pytest.mark.slow
@given(CHANGES)
def test_settings_survive_json_with_their_fingerprint(changes: dict[str, Any]) -> None:
    settings = Settings.from_run_config(Settings().to_run_config() | changes)
    kept = Settings.from_mapping(json.loads(json.dumps(settings.model_dump(exclude={"run"}))))
    assert kept.fingerprint() == settings.fingerprint()


def test_fingerprint_follows_what_is_computed_and_not_where_it_is_written() -> None:
    base = Settings()
    moved = Settings.from_mapping({"run": {"directory": "/elsewhere", "started_at": 7.0}})
    other = Settings.from_mapping({"grpo": {"group_size": 9}})
    assert moved.fingerprint() == base.fingerprint() != other.fingerprint()


def test_lists_read_alike_from_toml_and_from_text() -> None:
    as_list = {"reward": {"functions": ["a:f", "b:g"], "weights": [1, 0.5]}}
    as_text = {"reward": {"functions": "a:f, b:g", "weights": "1, 0.5"}}
    assert Settings.from_mapping(as_list) == Settings.from_mapping(as_text)
    assert Settings.from_mapping(as_list).reward.weights == (1.0, 0.5)


@pytest.mark.parametrize(
    ("tree", "key", "value", "cure"),
    [
        ({"roundz": 3}, "roundz", "3", "did you mean rounds?"),
        (
            {"privacy": {"noise_mutliplier": 1.0}},
            "privacy.noise_mutliplier",
            "1.0",
            "noise_multiplier",
        ),
        ({"zebra": {"x": 1}}, "zebra", "1", "docs/settings.md"),
        ({"grop": {"steps": 1}}, "grop", "1", "did you mean grpo?"),
        ({"GRPO": {"steps": 1}}, "GRPO", "1", "did you mean grpo?"),
        ({"grpo": {"Group-Size": 4}}, "grpo.Group-Size", "4", "did you mean grpo.group_size?"),
        ({"grpo": {"num_generations": 4}}, "grpo.num_generations", "4", "called grpo.group_size"),
        ({"num_server_rounds": 4}, "num_server_rounds", "4", "it is called rounds here"),
        ({"rounds": "three"}, "rounds", "'three'", "correct rounds"),
        ({"rounds": True}, "rounds", "True", "correct rounds"),
        ({"rounds": 2.0}, "rounds", "2.0", "correct rounds"),
        ({"rounds": 0}, "rounds", "0", "correct rounds"),
        ({"model": 7}, "model", "7", "correct model"),
        ({"model": {"dtype": "float8"}}, "model.dtype", "'float8'", "correct model.dtype"),
        ({"data": {"tasks": 3}}, "data.tasks", "3", "correct data.tasks"),
        ({"privacy": {"delta": 1.0}}, "privacy.delta", "1.0", "correct privacy.delta"),
        ({"privacy": {"delta": float("nan")}}, "privacy.delta", "nan", "correct privacy.delta"),
        ({"grpo": {"learning_rate": float("inf")}}, "grpo.learning_rate", "inf", "1e-30 to 1000"),
        ({"grpo": {"temperature": 1e-30}}, "grpo.temperature", "1e-30", "from 0.01 to 100"),
        ({"reward": {"weights": [1.7e308]}}, "reward.weights", "1.7e+308", "-1000000 to 1000000"),
        ({"reward": {"weights": "inf"}}, "reward.weights", "inf", "correct reward.weights"),
        ({"secure": {"bucket_size": 2}}, "secure.bucket_size", "2", "correct secure.bucket_size"),
        ({"adapter": {"kind": "dora"}}, "adapter.kind", "'dora'", "correct adapter.kind"),
        ({"federation": {"min_clients": 8}}, "federation.min_clients", "8", "min_clients >= 9"),
        ({"federation": {"cohort": 8}}, "federation.cohort", "8", "cohort >= 9"),
        (
            {
                "federation": {"cohort": 10},
                "aggregation": {"protocol": "committee"},
                "privacy": {"noise": "server"},
            },
            "federation.cohort",
            "10",
            "cohort = 0",
        ),
        ({"robust": {"trim": 2}}, "robust.trim", "2", "min_clients >= 15, or robust.trim <= 1"),
        ({"grpo": {"steps": 2}}, "grpo.steps", "2", "set grpo.steps = 1"),
        ({"privacy": {"adaptive": True, "quantile": 0.9}}, "privacy.quantile", "0.9", "= 0.5"),
        ({"grpo": {"prompts_per_step": 2001}}, "grpo.prompts_per_step", "2001", "lower the first"),
        ({"privacy": {"honest_peers": 2}}, "privacy.honest_peers", "2", "remove it: each client"),
        ({"reward": {"functions": []}}, "reward.functions", "empty", "exact_match"),
        ({"reward": {"weights": [1.0, 2.0]}}, "reward.weights", "2 numbers", "give one each"),
        ({"reward": {"minimum": 1.0}}, "reward.minimum", "1.0", "range"),
        ({"simulation": {"byzantine": 13}}, "simulation.byzantine", "13", "add clients"),
    ],
)
def test_bad_settings_are_refused_with_key_value_and_cure(
    tree: dict[str, Any], key: str, value: str, cure: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(tree)
    assert key in caught.value.problem
    assert value in caught.value.problem
    assert cure in caught.value.cure


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping({"rounds": 0, "grpo": {"group_size": 1}, "speed": 9})
    for key in ("rounds", "grpo.group_size", "speed"):
        assert key in caught.value.problem


def test_a_scenario_that_is_missing_or_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        Settings.from_toml(tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\)"):
        Settings.from_toml(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = \n")
    with pytest.raises(SettingsError, match=r"broken\.toml is not valid TOML.*line 1"):
        Settings.from_toml(broken)


def test_a_scenario_with_a_byte_order_mark_is_read_and_one_that_is_not_utf8_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scenario.toml"
    path.write_bytes(b"\xef\xbb\xbfrounds = 3\r\n")
    assert Settings.from_toml(path).rounds == 3
    path.write_bytes("seed = 1 # gr\u00fcn".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8 from byte 13"):
        Settings.from_toml(path)


@pytest.mark.parametrize("scenario", sorted((ROOT / "simulations").glob("*.toml")), ids=str)
def test_every_scenario_of_the_repository_is_valid(scenario: Path) -> None:
    settings = Settings.from_toml(scenario)
    assert settings.simulation.clients >= settings.federation.min_clients
    for_flower = flatten(tomllib.loads(scenario.read_text()))  # `flwr run . -c SCENARIO`
    assert all(isinstance(value, bool | int | float | str) for value in for_flower.values())
    assert Settings.from_run_config(Settings().to_run_config() | for_flower) == settings


def test_enough_clients_are_asked_for_to_trim_every_attacker() -> None:
    assert required_clients(bucket_size=3, trim=1) == 9
    assert [secret_threshold(size) for size in (3, 4, 5)] == [2, 3, 3]


def test_pyproject_offers_exactly_the_defaults_to_flwr_run() -> None:
    app = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert flatten(app["config"]) == Settings().to_run_config(), "run `make settings`"
    assert (ROOT / "pyproject.toml").read_text().endswith(config_table()), "run `make settings`"


def test_the_reference_of_settings_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == to_markdown(), "run `make settings`"


def test_the_reference_explains_every_setting() -> None:
    rows = [row.split(" | ") for row in to_markdown().splitlines() if row.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == sorted(
        Settings().to_run_config(), key=[row[0].strip("| `") for row in rows].index
    )
    assert all(len(row) == 4 and len(row[3]) > 5 for row in rows)


def test_a_units_column_needs_privacy_of_prompts() -> None:
    data = {"unit": "patient_id", "unit_rows": 3}
    assert Settings.from_mapping({"data": data}).data.unit_rows == 3
    for unit in ("none", "client"):
        with pytest.raises(
            SettingsError, match=r"data\.unit = 'patient_id' and data\.unit_rows = 3"
        ):
            Settings.from_mapping({"data": data, "privacy": {"unit": unit}})


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_setting_by_its_old_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(SettingsError, match=rf"{re.escape(old)} = 9.*\n.*called {re.escape(new)}"):
        Settings.from_run_config({old: 9})
    assert new in Settings().to_run_config()


def test_what_other_libraries_call_a_setting_is_answered_by_a_setting_that_there_is() -> None:
    known = {*Settings().to_run_config(), *Settings.model_fields}
    for theirs, ours in ELSEWHERE.items():
        assert ours.partition(",")[0].partition(" ")[0] in known
        assert theirs not in {key.rpartition(".")[2] for key in known} - {"epsilon"}
