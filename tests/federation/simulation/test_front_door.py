"""A federation as one call, in this process: the same rounds, rows, attackers and run directory."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fedgrpo
from fedgrpo.cli.app import app
from fedgrpo.federation.simulation.in_process import run_in_process
from fedgrpo.ground.errors import DataError, RunError, SettingsError
from fedgrpo.ledger import KnownRoot, verify
from fedgrpo.report.reader import read_rows, read_status, read_summary
from fedgrpo.report.records import RoundRow
from fedgrpo.settings import Settings

SMALL: dict[str, Any] = {
    "rounds": 2,
    "data": {"prompts_per_client": 30, "min_prompts": 3},
    "grpo": {"prompts_per_step": 2, "group_size": 2, "max_completion_length": 4},
    "privacy": {"unit": "none"},
    "evaluation": {"prompts": 4},
    "simulation.clients": 9,
}
ROWS = [[{"prompt": f"add {i}+{j}=", "goal": str(i + j)} for j in range(3)] for i in range(9)]
SCENARIO = """
rounds = 2
data = { prompts_per_client = 30, min_prompts = 3 }
grpo = { prompts_per_step = 2, group_size = 2, max_completion_length = 4 }
privacy = { unit = "none" }
evaluation = { prompts = 4 }
simulation = { clients = 9 }
"""


def short(completions: list[str], goal: list[str], **_: object) -> list[float]:
    return [float(len(c) <= len(g)) for c, g in zip(completions, goal, strict=True)]


class Listening(fedgrpo.Callback):
    def __init__(self) -> None:
        self.rounds: list[int] = []

    def on_round(self, row: RoundRow) -> None:
        self.rounds.append(row.round)
        raise ValueError("a logger that fails")


@pytest.mark.slow
def test_a_run_in_memory_has_history_adapter_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening = Listening()
    with caplog.at_level(logging.ERROR):
        result = fedgrpo.simulate(SMALL, callbacks=[listening, object()])
    assert listening.rounds == [row.round for row in result.history] == [0, 1, 2]
    assert "Listening failed in on_round" in caplog.text
    assert all(row.applied and row.finished == 9 for row in result.history[1:])
    assert [row.round for row in result.measured] == [0, 2]
    assert result.directory is None
    assert np.abs(result.adapter.vector).max() > 0
    assert repr(result).startswith("Result(2 of 2 rounds applied, sampled ")
    assert (result.save(tmp_path / "mine") / "adapter_config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["none", "prompt"])
def test_prompts_and_reward_are_those_of_the_caller(unit: str) -> None:
    asked: list[int] = []

    def counted(completions: list[str], goal: list[str], **_: object) -> list[float]:
        asked.append(len(completions))
        return short(completions, goal)

    privacy = {"unit": unit, "noise_multiplier": 100.0}
    settings = SMALL | {"rounds": 1, "privacy": privacy}
    result = fedgrpo.simulate(settings, clients=ROWS, reward=counted, held_out=ROWS[0])
    assert result.settings.simulation.clients == 9
    assert result.history[-1].finished == 9
    assert bool(result.privacy) == (unit == "prompt")
    if unit == "prompt":
        assert asked[0] == asked[-1] == 3, "what is held out is judged together"
        assert set(asked[1:-1]) <= {2, 3}, "a client's are judged a group at a time"
    assert asked


@pytest.mark.slow
def test_nothing_is_measured_on_prompts_that_the_callers_reward_does_not_know() -> None:
    result = fedgrpo.simulate(SMALL | {"rounds": 1}, clients=ROWS, reward=short)
    assert result.measured == ()
    assert "sampled" not in repr(result)


@pytest.mark.slow
def test_attackers_and_dropouts_of_the_settings_work() -> None:
    faults = {"clients": 9, "byzantine": 1, "boost": 1e3, "droppers": 3, "dropout": 1.0}
    settings = Settings.from_mapping(
        {k: v for k, v in SMALL.items() if "." not in k} | {"simulation": faults, "rounds": 3}
    )
    with pytest.raises(fedgrpo.ground.errors.CohortError, match="skipped"):
        fedgrpo.simulate(settings)


@pytest.mark.slow
def test_a_run_directory_is_the_commands_and_resumes(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Stopping(fedgrpo.FedGRPO):
        def configure_train(self, server_round: int, *others: Any) -> Any:
            if server_round == 2:
                raise StopError
            return super().configure_train(server_round, *others)

    run_dir = tmp_path / "run"
    with pytest.raises(StopError):
        fedgrpo.simulate(SMALL, directory=run_dir, strategy=Stopping)
    assert [row.round for row in read_rows(run_dir)] == [0, 1]
    listening = Listening()
    result = fedgrpo.simulate(SMALL, directory=run_dir, callbacks=[listening])
    assert listening.rounds == [2]
    assert result.history == tuple(read_rows(run_dir))
    assert result.directory == run_dir
    summary, status = read_summary(run_dir), read_status(run_dir)
    assert summary is not None
    assert summary.rounds == 2
    assert status is not None
    assert status.state == "finished"
    assert (run_dir / "report.png").exists()


@pytest.mark.slow
def test_the_command_runs_in_one_process_too(tmp_path: Path) -> None:
    scenario, run_dir = tmp_path / "small.toml", tmp_path / "run"
    scenario.write_text(SCENARIO)
    done = CliRunner().invoke(
        app, ["simulate", "--in-process", str(scenario), "--run-dir", str(run_dir)]
    )
    assert done.exit_code == 0, done.output
    assert "round 2/2" in done.output
    assert "Held-out accuracy, sampled" in done.output
    assert (run_dir / "ledger.jsonl").exists()
    verified = CliRunner().invoke(app, ["ledger", "verify", str(run_dir)])
    assert verified.exit_code == 0, verified.output


@pytest.mark.slow
def test_without_ray_the_command_runs_in_this_process_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    Path("tiny.toml").write_text(SCENARIO)
    ran = CliRunner().invoke(app, ["simulate", "tiny.toml", "--set", "rounds=1"])
    assert ran.exit_code == 0, ran.output
    assert "fedgrpo[simulation]" in ran.output
    assert "| Rounds | 1 |" in Path("runs/tiny/adapter/README.md").read_text()
    assert verify(Path("runs/tiny"), expected=card_root(Path("runs/tiny"))).ended
    with pytest.raises(RunError, match="is not installed"):
        fedgrpo.simulate(SMALL, in_process=False, directory=tmp_path / "other")


def card_root(run: Path) -> KnownRoot:
    """What the model card tells of the ledger."""
    (told,) = re.findall(r"`([0-9a-f]{64}:\d+)`", (run / "adapter" / "README.md").read_text())
    return KnownRoot.parse(told)


@pytest.mark.slow
def test_what_cannot_work_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="do not reach"):
        fedgrpo.simulate(SMALL, reward=short, in_process=False, directory=tmp_path)
    with pytest.raises(SettingsError, match="needs a directory"):
        fedgrpo.simulate(SMALL, in_process=False)
    with pytest.raises(SettingsError, match="held out"):
        fedgrpo.simulate(SMALL, clients=ROWS, directory=tmp_path / "run")
    with pytest.raises(DataError, match=r"clients\[1\], row 1 has no prompt"):
        fedgrpo.simulate(SMALL, clients=[ROWS[0], [{"goal": "3"}]])
    with pytest.raises(DataError, match=r"clients\[0\] has no rows"):
        fedgrpo.simulate(SMALL, clients=[[], ROWS[0]])
    many = SMALL | {"privacy": {}, "data": {"min_prompts": 4}}
    with pytest.raises(DataError, match="smallest list in clients leaves a client 3 units"):
        fedgrpo.simulate(many, clients=ROWS)


@pytest.mark.slow
def test_without_a_console_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    settings = fedgrpo.simulate(SMALL | {"rounds": 1}).settings
    run_in_process(settings, None)
    assert capsys.readouterr().out == ""
