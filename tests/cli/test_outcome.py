"""How commands end: no traceback for what users bring, and one place for what nobody foresaw."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.cli.outcome import explained
from fedgrpo.ground.errors import (
    DataError,
    FaultsError,
    FedGRPOError,
    RunFailedError,
    SettingsError,
    all_at_once,
)

SECRET = "patient Zyx"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def ended(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and message of a command that this error ends."""
    with pytest.raises(typer.Exit) as caught, explained():
        raise error
    return caught.value.exit_code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("bad", cure="mend"), 2, "cure: mend"),
        (RunFailedError("failed"), 1, "failed"),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "/data/x: Permission denied"),
        (OSError(28, "No space left on device", "/runs/x"), 1, "/runs/x: No space left on device"),
        (MemoryError(), 1, "not enough memory"),
    ],
)
def test_an_error_ends_with_its_code_and_a_cure(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, text = ended(error, capsys)
    assert found == code
    assert words in text
    assert "Traceback" not in text


def test_the_unexpected_is_called_a_bug_with_a_file_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = ended(ZeroDivisionError(SECRET), capsys)
    (kept,) = tmp_path.glob("fedgrpo-bug-*.txt")
    assert code == 1
    assert "this is a bug in fedgrpo" in text
    assert "ZeroDivisionError" in text
    assert kept.name in text.replace("\n", "")
    assert SECRET not in text
    assert "raise error" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_all_faults_are_told_at_once_each_with_its_cure_and_none_twice() -> None:
    def fail(error: FedGRPOError) -> None:
        raise error

    faults = [SettingsError("one", cure="first"), DataError("two", cure="second")]
    checks = [lambda error=error: fail(error) for error in [*faults, faults[0]]]
    with pytest.raises(FaultsError, match="2 things are wrong") as caught:
        all_at_once([*checks, lambda: None])
    assert "1. one\n  cure: first\n2. two\n  cure: second" in str(caught.value)
    with pytest.raises(DataError, match="two"):
        all_at_once([checks[1]])
    all_at_once([lambda: None])


def test_there_is_one_sentence_where_files_cannot_be_locked() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import fedgrpo.cli.app"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.strip().count("\n") == 0
    assert "Linux or macOS" in ran.stderr


SCENARIO = """
rounds = 1
[data]
source = "prompts.jsonl"
min_prompts = 1
[grpo]
prompts_per_step = 2
group_size = 4
max_completion_length = 6
[evaluation]
prompts = 60
[privacy]
unit = "none"
[robust]
rule = "mean"
trim = 0
[federation]
min_clients = 3
[simulation]
clients = 4
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "folder, with a comma (1)"
    home.mkdir()
    monkeypatch.chdir(home)
    (home / "s.toml").write_text(SCENARIO)
    rows = [{"prompt": f"{SECRET} {i}+1=", "ward": i % 4} for i in range(60)]
    (home / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "reward.py").write_text(
        "def length(completions, note=None):\n    return [float(len(c)) for c in completions]\n"
        "def noted(completions, note):\n    return [1.0 for c in completions]\n"
    )
    return home


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert SECRET not in result.output
    return " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["simulate", "train"])
def test_all_that_can_be_known_is_told_before_anything_starts(home: Path, command: str) -> None:
    text = refused(command, "s.toml", "--set", "reward.functions=exact_match, reward.py:noted")
    assert "needs the column 'answer'" in text
    assert "needs the column 'note'" in text
    assert "cannot hold 60 of 60 rows out" in text
    assert "3 things are wrong" in text
    assert not (home / "runs").exists()


@pytest.mark.parametrize("command", ["simulate", "train"])
def test_rows_that_cannot_be_used_are_named_as_in_the_file(home: Path, command: str) -> None:
    text = refused(command, "s.toml", "--set", "grpo.max_prompt_length=8")
    assert "none of 60 rows can be used" in text
    assert "row 1 of the prompts" in text
    lines = (home / "prompts.jsonl").read_text().splitlines()
    lines[6] = '{"question": 7}'
    (home / "prompts.jsonl").write_text("\n".join(lines))
    text = refused(command, "s.toml", "--set", "data.max_failing=0")
    assert "row 7 has no prompt; it has 'question'" in text


def test_a_column_to_split_by_that_does_not_exist_is_refused_before_the_start(home: Path) -> None:
    options = ["data.partition_by=clinic", "reward.functions=reward.py:length"]
    few = ["evaluation.prompts=4"]
    text = refused("simulate", "s.toml", *(x for o in options + few for x in ("--set", o)))
    assert "clinic" in text


@pytest.mark.parametrize("command", ["simulate", "train"])
@pytest.mark.parametrize("place", ["/proc/run", "/dev/null/run", "s.toml/run"])
def test_a_folder_that_cannot_be_written_is_refused(home: Path, command: str, place: str) -> None:
    assert "cannot be written" in refused(command, "s.toml", "--run-dir", place)


def test_a_disk_without_room_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgrpo.report.run_directory.LEAST_FREE", 10**18)
    assert "MB of room left" in refused("train", "s.toml")


def test_a_misspelt_section_is_answered_by_the_right_one(home: Path) -> None:
    (home / "s.toml").write_text("[grop]\nprompts_per_step = 2\n")
    assert "did you mean grpo?" in refused("train", "s.toml")
