"""What cannot work is refused, and what cannot learn warned of, before anything starts."""

import json
from pathlib import Path

import pytest

from fedgrpo.data.ownership import held_out_and_trained_on
from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.settings import Settings


def settings(**privacy: object) -> Settings:
    tree = {"max_epsilon": 1e6, **privacy}
    return Settings.from_mapping({"privacy": tree, "rounds": 2})


def test_a_client_level_run_that_drowns_in_noise_is_warned_of() -> None:
    (warning,) = preflight(settings(unit="client", noise_multiplier=2.0))
    assert "noise drowns the signal: 3968 trainable values" in warning


def test_a_run_that_can_learn_is_not_warned_of() -> None:
    assert preflight(settings(unit="prompt", noise_multiplier=1.0)) == ()
    assert preflight(settings(unit="client", noise_multiplier=0.04)) == ()
    assert preflight(settings(unit="none")) == ()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_a_cpu_is_warned_of(dtype: str) -> None:
    tree = {"privacy": {"unit": "none"}, "model": {"dtype": dtype, "device": "cpu"}}
    (warning,) = preflight(Settings.from_mapping(tree))
    assert f"model.dtype = '{dtype}' on a CPU" in warning
    assert "model.dtype = 'float32'" in warning


def of_file(path: Path, min_prompts: int, unit: str = "") -> Settings:
    """40 rows of 20 texts and 10 persons, of which one person's or text's rows are held out."""
    rows = [{"prompt": f"p{i % 20}", "answer": "1", "person": i % 10} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": str(path), "min_prompts": min_prompts, "unit": unit}
    tree = {"data": data, "evaluation": {"prompts": 1}, "privacy": {"max_epsilon": 1e6}}
    small = {"grpo": {"prompts_per_step": 1}, "federation": {"min_clients": 9}}
    return Settings.from_mapping(tree | small | {"rounds": 1, "simulation": {"clients": 9}})


@pytest.mark.slow
def test_a_simulated_client_with_too_few_units_is_refused_before_the_start(tmp_path: Path) -> None:
    assert preflight(of_file(tmp_path / "p.jsonl", 2)) == ()
    with pytest.raises(
        DataError, match=r"leaves a client 2 units, fewer than data\.min_prompts = 3"
    ):
        preflight(of_file(tmp_path / "p.jsonl", 3))
    with pytest.raises(DataError, match="leaves a client 1 units"):
        preflight(of_file(tmp_path / "p.jsonl", 2, "person"))
    with pytest.raises(DataError, match="40 of 40 rows have no value in column 'patient'"):
        preflight(of_file(tmp_path / "p.jsonl", 1, "patient"))


def test_built_in_tasks_have_no_persons() -> None:
    tree = {"data": {"unit": "patient"}, "privacy": {"max_epsilon": 1e6}, "rounds": 1}
    with pytest.raises(SettingsError, match="belong to nobody"):
        preflight(Settings.from_mapping(tree))


def measured_apart(folder: Path, evaluation: dict[str, object]) -> Settings:
    """Rows with a topic, and rows of their own to measure on, of which two are trained on, too."""
    for name, first in (("train", 0), ("test", 18)):
        rows = [
            {"prompt": f"{n}+1=", "answer": str(n + 1), "topic": n % 2}
            for n in range(first, first + 20)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "data": {"source": str(folder / "train.jsonl")},
        "evaluation": {"source": str(folder / "test.jsonl"), "prompts": 9} | evaluation,
        "privacy": {"unit": "none"},
        "simulation": {"clients": 9},
    }
    return Settings.from_mapping(tree)


@pytest.mark.slow
def test_held_out_prompts_that_are_trained_on_are_told(tmp_path: Path) -> None:
    (told,) = preflight(measured_apart(tmp_path, {}))
    assert "2 of 9 held-out prompts of evaluation.source are in data.source, too" in told
    assert held_out_and_trained_on(Settings()) == ""


@pytest.mark.slow
def test_a_column_to_report_by_is_looked_for_before_the_start(tmp_path: Path) -> None:
    preflight(measured_apart(tmp_path, {"by": "topic"}))
    with pytest.raises(DataError, match=r"evaluation\.by = 'topik' .* they have answer, topic"):
        preflight(measured_apart(tmp_path, {"by": "topik"}))


def test_held_out_prompts_of_the_caller_are_the_ones_that_are_looked_at() -> None:
    read = Settings.from_mapping({"privacy": {"unit": "none"}, "evaluation": {"by": "asked"}})
    with pytest.raises(DataError, match=r"evaluation\.by = 'asked'"):
        preflight(read)
    measured = [PromptRow("sort 312=", {"answer": "123", "asked": "plainly"})]
    assert preflight(read, None, measured) == ()
