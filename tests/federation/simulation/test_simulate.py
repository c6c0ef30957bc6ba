"""Simulation: what Flower is told, and one real run that leaves no process behind."""

import contextlib
import json
import os
import subprocess
import sysconfig
from pathlib import Path

import psutil
import pytest

from fedgrpo.federation.simulation import reaper
from fedgrpo.federation.simulation.flower_run import federation_options
from fedgrpo.federation.simulation.simulate import simulate
from fedgrpo.ground.errors import RunFailedError
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario
from tests.scenarios import write_small


def test_flower_is_told_of_every_client_and_what_it_needs() -> None:
    settings = Settings.from_mapping({"simulation": {"clients": 10, "gpus_per_client": 0.25}})
    options = federation_options(settings)
    assert options["num-supernodes"] == 10
    assert options["client-resources-num-cpus"] == 1
    assert options["client-resources-num-gpus"] == 0.25


def test_ray_gets_no_more_cores_than_the_clients_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_mapping({"simulation": {"clients": 9, "cpus_per_client": 2}})
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert federation_options(settings)["init-args-num-cpus"] == 18
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert "init-args-num-cpus" not in federation_options(settings)


def test_overrides_take_the_place_of_the_scenario(tmp_path: Path) -> None:
    scenario = write_small(tmp_path)
    overrides = {"rounds": 7, "data.tasks": ["add", "sort"], "robust.rule": "mean"}
    settings = load_scenario(scenario, overrides, tmp_path)
    assert (settings.rounds, settings.data.tasks) == (7, ("add", "sort"))
    assert settings.robust.rule == "mean"
    assert settings.simulation.clients == 9


def test_paths_are_those_of_the_users_directory_and_names_stay(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    scenario = write_small(tmp_path)
    overrides = {
        "data.source": "mine.jsonl",
        "evaluation.source": "hf:public/set",
        "reward.functions": "exact_match, judge.py:score, package.module:f",
        "model.name": "base",
    }
    settings = load_scenario(scenario, overrides, tmp_path)
    assert settings.data.source == str(tmp_path / "mine.jsonl")
    assert settings.evaluation.source == "hf:public/set"
    assert settings.reward.functions == (
        "exact_match",
        f"{tmp_path / 'judge.py'}:score",
        "package.module:f",
    )
    assert settings.model.name == str(tmp_path / "base")
    assert load_scenario(scenario, {"model.name": "org/model"}, tmp_path).model.name == "org/model"


@pytest.mark.slow
def test_a_run_of_which_no_round_counts_has_failed(tmp_path: Path) -> None:
    scenario = write_small(tmp_path)
    lost = {"simulation.droppers": 9, "simulation.dropout": 1.0, "federation.wait_s": 1.0}
    with pytest.raises(RunFailedError, match="none of 1 rounds counted; the last one: "):
        simulate(scenario, overrides=lost, run_dir=tmp_path / "run", in_process=True)


@pytest.mark.flower
@pytest.mark.timeout(900)
def test_a_run_finishes_reports_and_leaves_no_process(tmp_path: Path) -> None:
    write_small(tmp_path)
    command = [str(Path(sysconfig.get_path("scripts")) / "fedgrpo"), "simulate", "small.toml"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False,
        env=os.environ | {"PATH": "/usr/bin:/bin", "RUN_OF_THIS_TEST": str(tmp_path)},
    )  # fmt: skip
    run_dir = tmp_path / "runs" / "small"
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert {"start", "end", "greedy_start", "greedy_end"} <= summary["reward"].keys()
    assert {"wall_s", "overhead_share", "privacy", "dropped"} <= summary.keys()
    assert summary["rounds"] == 1
    assert summary["robust"].pop("words").startswith("trimmed mean of 3 group means")
    assert summary["robust"] == {"rule": "trimmed_mean", "trim": 1, "buckets": 3}
    assert (run_dir / summary["adapter"] / "adapter_model.safetensors").exists()
    assert (run_dir / "report.png").exists()
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 2
    assert "round 1/1" in done.stdout
    assert reaper.processes_of(str(run_dir)) == []
    assert not [p.name() for p in psutil.process_iter() if _began_in(p) == str(tmp_path)]


def _began_in(process: psutil.Process) -> str:
    """The run of a test that a process belongs to, whoever its parent is by now."""
    with contextlib.suppress(psutil.Error):
        return process.environ().get("RUN_OF_THIS_TEST", "")
    return ""
