"""The command line: mistakes end in a message with a cure and exit code 2, before a start."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.report.records import PHASES, RoundRow
from fedgrpo.report.writer import RunWriter


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text("rounds = 2\n[simulation]\nclients = 9\n")
    return path


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", started)


def refuse(*arguments: str) -> str:
    """Run a command that must be refused, and return its message on one line."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "problem", "cure"),
    [
        (["roundz=3"], "unknown setting roundz = 3", "did you mean rounds?"),
        (["rounds.x=3"], "rounds", "correct rounds"),
        (["robust.rules=mean"], "unknown setting robust.rules = 'mean'", "robust.rule?"),
        (["rounds=three"], "rounds = 'three'", "correct rounds"),
        (["rounds"], "--set 'rounds' is no KEY=VALUE", "--set rounds=3"),
        (["=3"], "--set '=3' is no KEY=VALUE", "--set rounds=3"),
        (["rounds=3", "rounds = 4"], "--set gives rounds twice", "leave one of the two out"),
        (["data.source=none.jsonl"], "none.jsonl does not exist", "check the path"),
        (["evaluation.source=none.jsonl"], "none.jsonl does not exist", "check the path"),
        (["data.tasks=[]"], "data.tasks is empty", "choose from add"),
        (["data.tasks=add, cook"], "data.tasks = 'cook' is unknown", "choose from add"),
        (["data.prompts_per_client=100"], "data.prompts_per_client = 100", "raise the first"),
        (["reward.functions=praise"], "reward.functions = 'praise' is unknown", "choose from"),
        (["reward.functions=none.py:f"], "none.py does not exist", "check the path"),
        (["model.name=./no-model"], "does not exist", "check the path"),
        (["model.name=."], "no config.json", "save_pretrained"),
        (["simulation.attack=shout"], "simulation.attack = 'shout'", "reverse_boost"),
        (["grpo.advantage=luck"], "grpo.advantage = 'luck'", "choose from"),
        (["grpo.loss=weight"], "grpo.loss = 'weight'", "choose from"),
        (["robust.rule=krum"], "robust.rule = 'krum'", "trimmed_mean"),
        (["server.optimiser=lion"], "server.optimiser = 'lion'", "fedadam"),
        (["simulation.clients=8"], "simulation.clients = 8", "clients >= 9"),
        (["simulation.cpus_per_client=4096"], "cpus_per_client = 4096", "cpus_per_client <="),
        (
            ["privacy.noise_multiplier=0.3"],
            "would spend epsilon",
            "privacy.noise_multiplier >= 0.",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_cure(
    scenario: Path, overrides: list[str], problem: str, cure: str
) -> None:
    options = [part for override in overrides for part in ("--set", override)]
    message = refuse("simulate", str(scenario), *options)
    assert problem in message
    assert cure in message.partition("cure:")[2]
    assert not (scenario.parent / "runs").exists()


@pytest.mark.slow
def test_training_alone_and_dry_runs_refuse_mistakes_too(scenario: Path) -> None:
    for command in ("train", "dry-run"):
        assert "did you mean rounds?" in refuse(command, str(scenario), "--set", "roundz=3")
        assert "does not exist" in refuse(command, str(scenario), "--prompts", "none.jsonl")
        assert "choose from" in refuse(command, str(scenario), "--set", "grpo.loss=weight")
    assert not (scenario.parent / "runs").exists()


def test_a_missing_scenario_is_refused_by_name(tmp_path: Path) -> None:
    assert "missing.toml does not exist" in refuse("simulate", str(tmp_path / "missing.toml"))


def test_a_bad_prompt_file_is_refused_by_line_without_quoting_it(scenario: Path) -> None:
    (scenario.parent / "mine.jsonl").write_text('{"prompt": "a"}\n{"question": "my secret"}\n')
    message = refuse("simulate", str(scenario), "--set", "data.source=mine.jsonl")
    assert "row 2 has no prompt" in message
    assert "secret" not in message


def test_an_empty_prompt_file_is_refused(scenario: Path) -> None:
    (scenario.parent / "mine.jsonl").write_text("")
    assert "has no rows" in refuse("simulate", str(scenario), "--set", "data.source=mine.jsonl")


def test_a_report_needs_a_run(tmp_path: Path) -> None:
    assert "holds no run" in refuse("report", str(tmp_path))
    assert "holds no run" in refuse("report", str(tmp_path / "missing"))


@pytest.mark.slow
def test_a_report_of_an_unfinished_run_tells_how_far_it_is(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.phase(0, 5, "evaluate")
    writer.row(
        RoundRow(
            round=0, applied=True, reason="", metrics={}, clipping_norm=1.0,
            update_norm=None, finished=0, dropped=0, buckets=0, epsilon=None,
            seconds=dict.fromkeys(PHASES, 0.0), sampled=0.2, greedy=0.2, kl_base=0.0, members=None,
            held_out_by={},
        )
    )  # fmt: skip
    writer.phase(1, 5, "train")
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0
    assert "Not finished: running after 0 of 5 rounds" in result.output
    assert (tmp_path / "report.png").stat().st_size > 0


def test_settings_are_printed_for_people_and_for_flower() -> None:
    for_people = CliRunner().invoke(app, ["settings"]).output
    for_flower = CliRunner().invoke(app, ["settings", "--flower"]).output
    assert for_people.startswith("# Settings")
    assert for_flower.startswith("[tool.flwr.app.config]\nrounds = ")


@pytest.mark.parametrize(
    "command", [[], ["simulate"], ["train"], ["dry-run"], ["report"], ["settings"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.startswith("fedgrpo ")
