"""``fedgrpo policy`` reads the policy and the account as they are, and changes neither."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.rehearsal import prompt_check
from fedgrpo.grpo.isolated.apart import can_fork
from fedgrpo.privacy import worst_epsilon
from fedgrpo.settings import Settings
from fedgrpo.site import Site, SpendingFile
from fedgrpo.site.account.costs import round_entry
from fedgrpo.site.checked import Checked, files_stamp, looked_at, read_checked
from fedgrpo.site.node_folder import folder_beside

PUBLIC = "prompts_declared = 2000\nlongest_prompt_tokens = 64\nanswer_after_s = 600.0\n"
POLICY = f'{PUBLIC}models = ["tiny"]\nrewards = ["exact_match"]\n[prompt]\nlargest_epsilon = 4.0\n'


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def prompts(*texts: object, folder: str = ".") -> str:
    path = Path(folder) / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return str(path)


SEEN = looked_at(Settings())
"""How rows are looked at where nothing else is said."""


def stamp() -> Checked | None:
    return read_checked(folder_beside(Path("prompts.jsonl")))


@pytest.mark.slow
def test_prompts_that_fit_are_stamped_until_they_change() -> None:
    file = prompts("add 1+2=", "add 1+2=", "sort 321=")
    said = run("check", "policy.toml", "s.toml", "--prompts", file)
    assert "3 rows, 2 units (different texts), the longest prompt has" in said
    assert "checked: a node may answer with these prompts" in said
    assert stamp() == Checked(files_stamp(file), {SEEN: 2})
    prompts("another")
    assert stamp() != Checked(files_stamp(file), {SEEN: 2})


@pytest.mark.slow
def test_the_column_that_makes_units_is_checked_by_itself() -> None:
    file = prompts("a=")
    Path("prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i}=", "patient": i % 2}) + "\n" for i in range(5))
    )
    run("check", "policy.toml", "--prompts", file)
    text = Path("policy.toml").read_text()
    Path("policy.toml").write_text(f'unit_column = "patient"\n{text}')
    Path("s.toml").write_text("[data]\nunit = 'patient'\n")
    for scenario in ([], ["s.toml"]):
        said = run("check", "policy.toml", *scenario, "--prompts", file)
        assert "5 rows, 2 units (values of 'patient')" in said
    by_patient = looked_at(Settings.from_toml("s.toml"))
    assert stamp() == Checked(files_stamp(file), {SEEN: 5, by_patient: 2})


def test_a_run_by_another_column_than_the_sites_is_refused() -> None:
    Path("s.toml").write_text("[data]\nunit = 'patient'\n")
    said = run("check", "policy.toml", "s.toml", code=2)
    assert "refused, unit: data.unit = 'patient' is not this site's unit_column = ''" in said


def test_prompts_that_change_while_they_are_looked_at_get_no_stamp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = prompts("a=", "b=")
    monkeypatch.setattr(
        "fedgrpo.federation.rehearsal.prompt_check.check_unit_column",
        lambda *_: prompts("a=", "b=", "c="),
    )
    assert "changed while it was looked at" in run("check", "--prompts", file, code=2)
    assert stamp() is None


def test_more_units_than_declared_are_refused_with_a_round_number() -> None:
    Path("policy.toml").write_text(POLICY.replace("2000", "100"))
    said = run("check", "--prompts", prompts(*(f"{i}=" for i in range(123))), code=2)
    assert "prompts_declared = 100, and there are 123 units" in said
    assert "cure: prompts_declared = 130" in said
    assert stamp() is None


def test_a_length_that_nobody_declared_is_proposed() -> None:
    Path("policy.toml").write_text(POLICY.replace("longest_prompt_tokens = 64", ""))
    said = run("check", "--prompts", prompts("a=", "1234567="), code=2)
    assert "cure: longest_prompt_tokens = 8" in said
    assert stamp() is None


def test_rows_above_the_declared_length_are_told_to_the_site_and_hold_nothing_up() -> None:
    file = prompts("a=", "1" * 70)
    assert "1 rows are above longest_prompt_tokens" in run("check", "--prompts", file)
    assert stamp() is not None


def test_rows_that_cannot_be_read_are_told_without_their_text() -> None:
    said = run("check", "--prompts", prompts("a=", "", 7, 8), code=2)
    assert "1 rows cannot be used: each has an empty prompt" in said
    assert "2 rows cannot be used: each has a prompt of type int" in said
    assert stamp() is None


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked safely here")
def test_rows_that_a_tokenizer_never_ends_with_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(tokenizer: object, prompt: str, *style: object) -> list[int]:
        while prompt == "loop=":
            pass
        return [1]

    monkeypatch.setattr("fedgrpo.model.encoding.encode_prompt", encoded)
    said = run("check", "--prompts", prompts("a=", "loop=", "b="), code=2)
    assert "1 rows cannot be used: each takes the model's template or tokenizer longer" in said
    assert stamp() is None


def test_the_nodes_own_folder_can_be_named() -> None:
    run("check", "--prompts", prompts("a="), "--state", "elsewhere")
    assert stamp() is None
    assert read_checked(Path("elsewhere")) is not None
    assert Path("elsewhere").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prompts_declared = 1999", "refused, declared: prompts_declared = 1999 is below"),
        ("longest_prompt_tokens = 513", "refused, longest-prompt: longest_prompt_tokens = 513"),
        ("answer_after_s = 3600.0", "refused, answer-time: answer_after_s = 3600 is not below"),
    ],
)
def test_figures_that_do_not_fit_a_run_are_told_beforehand(line: str, said: str) -> None:
    lines = [old for old in POLICY.splitlines() if old.split()[0] != line.split(maxsplit=1)[0]]
    Path("policy.toml").write_text("\n".join([line, *lines]))
    assert said in run("check", "policy.toml", "s.toml", code=2)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "code"), [(0.0, 0), (597.9, 0), (598.1, 2), (1234.5, 2)])
def test_the_time_that_an_order_takes_here_is_held_against_the_answers(
    seconds: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_check, "order_seconds", lambda *_: seconds)
    said = run("check", "policy.toml", "s.toml", "--prompts", prompts("a="), code=code)
    assert ("takes" in said) is (seconds > 0)
    if code:
        assert f"cure: answer_after_s = {610.0 if seconds < 600 else 1300.0}" in said


@pytest.mark.slow
def test_a_nodes_own_way_of_sizing_an_order_is_asked() -> None:
    settings = Settings.from_toml("s.toml")
    config = {"policy": "policy.toml", "prompts": prompts("a=")}
    seconds = prompt_check.order_seconds(config, settings)
    assert 0 <= seconds < 1e6


def test_what_went_wrong_is_listed_with_what_was_spent() -> None:
    site = Site.open(Path("policy.toml"))
    site.mishaps.add({"a prompt is too long": 2})
    site.mishaps.add({"a prompt is too long": 3, "out of time": 1})
    assert json.loads(run("spent", "--json"))["mishaps"] == {
        "a prompt is too long": 5,
        "out of time": 1,
    }
    assert "     5 x a prompt is too long" in run("spent")


def test_rows_without_a_value_in_the_units_column_are_told_to_the_sites_people() -> None:
    file = prompts("a=")
    rows = [{"prompt": "a=", "person": "x"}, {"prompt": "a=", "person": None}]
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("u.toml").write_text("[data]\nunit = 'person'\n")
    said = run("check", "policy.toml", "u.toml", "--prompts", file, code=2)
    assert "1 of 2 rows have no value in column 'person'" in said
    assert "the first is row 2" in said
