"""``fedgrpo policy`` reads the policy and the account as they are, and changes neither."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli import app
from fedgrpo.policy import SpendingFile
from fedgrpo.policy.account import round_entry
from fedgrpo.privacy import worst_epsilon
from fedgrpo.settings import Settings

POLICY = 'models = ["tiny"]\nrewards = ["exact_match"]\n[prompt]\nlargest_epsilon = 4.0\n'


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy.toml").write_text(POLICY)
    Path("s.toml").write_text("rounds = 10\n[privacy]\nnoise_multiplier = 1.0\n")
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["policy", *arguments])
    assert result.exit_code == code, result.output
    return str(result.output)


def spend(rounds: int) -> None:
    settings = Settings.from_toml("s.toml")
    for number in range(rounds):
        entry = round_entry(settings, run=1, round=number, plan=f"{number}")
        SpendingFile(Path("spent.jsonl")).charge(entry, lambda entries: None)


def test_the_page_is_printed() -> None:
    assert run("explain").startswith("WHAT LEAVES THIS MACHINE")
    assert "This site's limit is 4" in " ".join(run("explain", "policy.toml").split())


def test_what_was_spent_is_shown_over_all_runs() -> None:
    spend(6)
    figures = json.loads(run("spent", "--json"))
    assert figures["releases"] == 6
    expected = worst_epsilon(Settings.from_toml("s.toml"), 6)
    assert figures["prompt_epsilon"] == pytest.approx(expected, abs=1e-9)
    assert figures["prompt_largest_epsilon"] == 4.0
    assert "releases                 6" in run("spent")


def test_looking_spends_nothing() -> None:
    run("explain"), run("check"), run("spent"), run("check", "policy.toml", "s.toml")
    assert not Path("spent.jsonl").exists()


def test_a_sound_policy_is_told_so() -> None:
    assert "policy.toml is sound; 0 releases so far" in run("check")


def test_a_run_that_would_be_answered_is_told_so() -> None:
    assert "all 10 rounds of s.toml would be answered" in run("check", "policy.toml", "s.toml")


def test_every_limit_that_a_run_would_break_is_told_with_its_cure() -> None:
    Path("s.toml").write_text('[privacy]\nunit = "none"\n[reward]\nfunctions = ["a.b:c"]\n')
    said = run("check", "policy.toml", "s.toml", code=2)
    assert "refused, unit: privacy.unit = 'none'" in said
    assert "refused, reward: reward function 'a.b:c'" in said
    assert said.count("cure:") >= 3


def test_a_budget_that_does_not_last_is_told_beforehand() -> None:
    limit = (worst_epsilon(Settings.from_toml("s.toml"), 6) or 0.0) + 1e-6
    Path("policy.toml").write_text(POLICY.replace("4.0", f"{limit}"))
    spend(2)
    said = run("check", "policy.toml", "s.toml", code=2)
    assert "refused after round 4 of 10, epsilon: the prompt account would come to" in said


@pytest.mark.parametrize("command", ["explain", "check", "spent"])
def test_a_bad_policy_is_refused_with_a_cure(command: str) -> None:
    Path("policy.toml").write_text("least_bucket = 1")
    said = run(command, code=2)
    assert "least_bucket = 1" in said
    assert "cure:" in said


@pytest.mark.parametrize("command", ["explain", "check", "spent"])
def test_a_changed_account_is_refused(command: str) -> None:
    spend(3)
    text = Path("spent.jsonl").read_text()
    Path("spent.jsonl").write_text(
        text.replace('"noise_multiplier": 1.0', '"noise_multiplier": 9.0', 1)
    )
    assert "was changed" in run(command, code=2)
