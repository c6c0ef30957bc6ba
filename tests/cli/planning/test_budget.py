"""``fedgrpo budget`` prints figures of the closed form, for people and for programs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.privacy import epsilon_gaussian


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["budget", *arguments])
    assert result.exit_code == code, result.output
    return str(result.output)


def figures(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["budget", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_noise_and_rounds_give_epsilon() -> None:
    found = figures("--unit", "client", "--noise-multiplier", "2.68", "--rounds", "20",
                    "--delta", "1e-5")  # fmt: skip
    assert found["epsilon"] == pytest.approx(epsilon_gaussian(2.68, 20, 1e-5), abs=1e-6)


def test_epsilon_and_rounds_give_noise_and_the_cohort_its_signal() -> None:
    found = figures("--epsilon", "8", "--rounds", "20", "--cohort", "50", "--trim", "5",
                    "--dimension", "500")  # fmt: skip
    assert found["noise_multiplier"] == pytest.approx(2.684, abs=1e-3)
    assert found["noise_to_signal"] == pytest.approx(found["noise_multiplier"] * 500**0.5 / 40)
    assert found["warning"] == ""


def test_settings_that_cannot_learn_are_warned_about_with_the_dimension_that_would() -> None:
    text = run("--epsilon", "8", "--rounds", "20", "--cohort", "50", "--trim", "5",
               "--dimension", "50000")  # fmt: skip
    assert "noise drowns the signal" in text
    assert "train at most 499 values" in text


@pytest.mark.slow
def test_secret_sampling_of_prompts_is_accounted_for() -> None:
    sampled = figures("--unit", "prompt", "--noise-multiplier", "1", "--rounds", "20",
                      "--prompts", "2000", "--prompts-per-round", "64")  # fmt: skip
    assert sampled["sample_rate"] == 0.032
    assert sampled["epsilon"] < epsilon_gaussian(1.0, 20, 1e-5) / 10


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "no budget follows"),
        (["--rounds", "3"], "no budget follows"),
        (["--unit", "prompt", "--rounds", "3", "--epsilon", "1"], "--prompts-per-round"),
        (["--rounds", "3", "--epsilon", "1", "--prompts", "9"], "say nothing about unit 'client'"),
        (["--rounds", "3", "--epsilon", "1", "--cohort", "4", "--trim", "2"], "leaves nobody"),
        (["missing.toml"], "does not exist"),
        (["s.toml", "--rounds", "3"], "--rounds cannot go with a scenario"),
    ],
)
def test_a_mistake_is_refused_with_a_cure(arguments: list[str], problem: str) -> None:
    text = run(*arguments, code=2)
    assert problem in text
    assert "cure:" in text


@pytest.mark.parametrize(
    ("noise", "rounds", "problem"),
    [
        ("1e-300", "3", "privacy.noise_multiplier = 1e-300 is not in"),
        ("1e300", "1000000000", "privacy.noise_multiplier = 1e+300 is not in"),
        ("1", "0", "rounds = 0 is not in 1 to"),
    ],
)
def test_figures_are_held_to_the_bounds_of_settings(noise: str, rounds: str, problem: str) -> None:
    assert problem in run("--noise-multiplier", noise, "--rounds", rounds, code=2)


@pytest.mark.parametrize(
    "option", ["--cohort=0", "--dimension=0", "--dimension=-7", "--trim=-1", "--bucket-size=0"]
)
def test_a_count_of_nobody_is_refused_and_not_passed_over(option: str) -> None:
    name, _, value = option.partition("=")
    text = run("--noise-multiplier", "1", "--rounds", "3", name, value, code=2)
    assert f"{value} is not in the range" in text


def test_a_scenario_prints_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text("rounds = 10\n[privacy]\nunit = 'client'\nnoise_multiplier = 4.0\n")
    found = figures("s.toml")
    assert found["epsilon"] == pytest.approx(epsilon_gaussian(4.0, 10, 1e-5), abs=1e-6)
    assert found["dimension"] == 3968
    assert found["clients"] == 9
    assert "noise drowns the signal" in run("s.toml")
    aimed = figures("s.toml", "--epsilon", "2", "--dimension", "4", "--set", "rounds=5")
    assert (aimed["rounds"], aimed["dimension"]) == (5, 4)
    assert aimed["epsilon"] <= 2.0


def test_a_scenario_without_privacy_has_no_plan(tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text("[privacy]\nunit = 'none'\n")
    assert "promises nothing" in run(str(scenario), code=2)


def test_both_epsilons_of_a_committee_are_printed(tmp_path: Path) -> None:
    scenario = tmp_path / "committee.toml"
    scenario.write_text(
        'rounds = 10\n[privacy]\nunit = "client"\nnoise = "server"\nnoise_multiplier = 8.0\n'
        '[aggregation]\nprotocol = "committee"\n'
    )
    found = figures(str(scenario))
    assert found["noise_multiplier"] == 8.0
    assert found["epsilon"] == pytest.approx(epsilon_gaussian(8.0, 10, 1e-5))
    assert found["member_epsilon"] == pytest.approx(epsilon_gaussian(4.0, 10, 1e-5))
    assert "Epsilon towards a committee member" in run(str(scenario))


@pytest.mark.slow
def test_copies_of_a_prompt_and_a_replaced_one_stand_beside_epsilon(tmp_path: Path) -> None:
    """The default run's figures, where each client adds noise and where one noise covers all."""
    scenario = tmp_path / "s.toml"
    scenario.write_text("")
    names = [f"epsilon_of_{m}_copies" for m in (2, 5, 10)]
    own = figures(str(scenario))
    assert [round(own[name], 2) for name in names] == [0.70, 0.93, 1.19]
    shared = figures(str(scenario), "--set", "privacy.noise='server'")
    assert [round(shared[name], 1) for name in names] == [1.2, 3.2, 6.5]
    assert own["epsilon"] < own["replaced_epsilon"] == shared["replaced_epsilon"] < 0.65
    assert "Epsilon of 10 copies" in run(str(scenario))


@pytest.mark.slow
def test_the_share_of_the_gain_to_expect_stands_beside_what_it_was_measured_on() -> None:
    asked = ("--unit", "prompt", "--noise-multiplier", "2", "--rounds", "16", "--prompts", "2000",
             "--prompts-per-round", "24", "--cohort", "12", "--dimension", "3968")  # fmt: skip
    found = figures(*asked)
    assert found["noise_per_value"] == pytest.approx(2 / (24 * 12))
    assert found["signal_per_value"] == pytest.approx(0.16 / 3968**0.5)
    assert 0.62 < found["expected_share"] < 0.65
    # 80 % at R = 0.183, in the place of 0.437.
    assert found["clients_wanted"] == 29
    assert 4000 < found["prompts_wanted"] < 20_000
    assert "norm-checked mean of 12 clients" in found["expected_from"]
    shown = run(*asked, "--trim", "4")
    assert "beyond what was measured" in shown
    assert "* measured on the shipped model" in shown
    assert "expected_share" not in figures("--noise-multiplier", "8", "--rounds", "3",
                                           "--cohort", "9", "--dimension", "9")  # fmt: skip


def test_clients_have_no_copies_and_a_replaced_one_costs_as_at_half_the_noise() -> None:
    found = figures("--noise-multiplier", "8", "--rounds", "10")
    assert found["replaced_epsilon"] == pytest.approx(epsilon_gaussian(4.0, 10, 1e-5))
    assert "copies" not in run("--noise-multiplier", "8", "--rounds", "10")
