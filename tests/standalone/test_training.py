"""Training alone: what it writes, and that nothing is lost when it is stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fedgrpo.data import ownership
from fedgrpo.data.ownership import evaluation_prompts, training_prompts
from fedgrpo.ground.errors import DataError, RunError, RunFailedError, RunInterruptedError
from fedgrpo.ground.files import lines
from fedgrpo.grpo import GRPOTrainer, TrainingWarning
from fedgrpo.report.rows import Rows
from fedgrpo.report.training import EVALUATIONS, read_training
from fedgrpo.settings import Settings
from fedgrpo.standalone import train, training
from fedgrpo.standalone.interruption import training_warnings
from fedgrpo.standalone.journal import Journal, finite
from fedgrpo.standalone.training import local_settings
from tests.standalone.scenario import assert_same, rows, write

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(scenario: Path, **options: object) -> tuple[Path, str]:
    """Train, and return the run directory and what was printed."""
    text = io.StringIO()
    console = Console(file=text, width=200)
    return train(scenario, console=console, **options), text.getvalue()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return run(write(folder), run_dir=folder / "run")


def at_step(number: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something once, in the middle of a step."""
    collect = GRPOTrainer.step

    def step(self: GRPOTrainer, chosen: object = None) -> object:
        metrics = collect(self, chosen)  # type: ignore[arg-type]
        if self.steps_done == number:
            monkeypatch.setattr(GRPOTrainer, "step", collect)
            act()
        return metrics

    monkeypatch.setattr(GRPOTrainer, "step", step)


def test_a_run_leaves_its_rows_adapters_picture_and_summary(whole: tuple[Path, str]) -> None:
    path, printed = whole
    found = read_training(path)
    assert [row["step"] for row in found.steps] == list(range(1, 9))
    assert [row.step for row in found.evaluations] == [0, 3, 6, 8]
    summary = found.summary
    assert summary is not None
    assert summary.steps == 8
    # Two passes over each batch of 3 x 4 completions.
    assert summary.completions == 4 * 3 * 4
    assert summary.tokens == sum(row["tokens"] for row in found.steps[::2])
    assert summary.sampled.best == max(row.sampled for row in found.evaluations)
    for name in ("adapter", "adapter-best"):
        assert (path / name / "adapter_model.safetensors").exists()
    assert (path / "training.png").stat().st_size > 10_000
    assert "as private as the prompts" in printed
    assert "step 8/8" in printed


def test_what_holds_prompts_and_completions_can_be_read_by_its_owner_alone(
    whole: tuple[Path, str],
) -> None:
    path, _ = whole
    for name in ("completions.jsonl", "state.pt"):
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
    prompts = {row["prompt"] for row in rows(path / "completions.jsonl")}
    assert prompts
    others = [p for p in path.rglob("*") if p.is_file() and stat.S_IMODE(p.stat().st_mode) != 0o600]
    for other in others:
        content = other.read_bytes()
        assert not [prompt for prompt in prompts if prompt.encode() in content]


def test_the_console_shows_completions_only_when_asked(whole: tuple[Path, str], home: Path) -> None:
    path, quiet = whole
    prompts = {row["prompt"] for row in rows(path / "completions.jsonl")}
    assert not [prompt for prompt in prompts if prompt in quiet]
    _, shown = run(write(home), overrides={"rounds": 1}, show_completions=True)
    assert prompts
    assert all(prompt in shown for prompt in prompts)


def test_evaluation_takes_no_random_number_from_training(
    whole: tuple[Path, str], home: Path
) -> None:
    path, _ = run(write(home), overrides={"evaluation.every": 1})
    assert rows(path / "steps.jsonl") == rows(whole[0] / "steps.jsonl")


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 2), (signal.SIGTERM, 3)])
def test_a_signal_lets_the_step_finish_and_the_same_command_resumes_to_the_bit(
    number: signal.Signals,
    step: int,
    whole: tuple[Path, str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_step(step, lambda: os.kill(os.getpid(), number), monkeypatch)
    before = signal.getsignal(number)
    with pytest.raises(RunInterruptedError, match=f"after step {step} of 8") as stopped:
        run(write(home))
    assert "the same command resumes" in stopped.value.cure
    assert signal.getsignal(number) is before
    assert len(rows(home / "runs/small/steps.jsonl")) == step
    path, printed = run(write(home))
    assert "resumes in" in printed
    assert_same(path, whole[0])


def test_rows_beyond_the_state_are_cut(
    whole: tuple[Path, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    at_step(5, die, monkeypatch)
    with pytest.raises(Killed):
        run(write(home))
    with (home / "runs/small/steps.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')  # Torn.
    path, _ = run(write(home))
    assert_same(path, whole[0])


def test_an_evaluation_that_was_cut_short_is_made_again(
    whole: tuple[Path, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    append = Rows.append

    def die(self: Rows, rows: list[str]) -> None:
        if self.path.name == EVALUATIONS and len(lines(self.path)) == 2:
            raise Killed
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(training, "STATE_EVERY", 1)  # There is a state of the very same step.
        patch.setattr(Rows, "append", die)
        with pytest.raises(Killed):
            run(write(home))
    path, _ = run(write(home))
    assert_same(path, whole[0])


def test_a_killed_process_is_resumed_to_the_bit(whole: tuple[Path, str], home: Path) -> None:
    scenario = write(home)
    command = [sys.executable, "-m", "fedgrpo.cli.app", "train", str(scenario)]
    path = home / "runs" / "small"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert any(b"step 3/8" in line for line in process.stdout)
        process.kill()
    assert not (path / "training.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumes in" in done.stdout
    assert_same(path, whole[0])


def test_sigterm_ends_the_command_with_130(home: Path) -> None:
    text = "rounds = 100000\n" + write(home).read_text().replace("rounds = 8\n", "")
    command = [sys.executable, "-m", "fedgrpo.cli.app", "train", str(write(home, text))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert any(b"held-out" in line for line in process.stdout)
        process.terminate()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"the same command resumes" in errors
    assert (home / "runs/small/adapter/adapter_model.safetensors").exists()


def test_other_prompts_do_not_carry_on_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = home / "mine.jsonl"
    lines = [json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) for i in range(40)]
    mine.write_text("\n".join(lines))
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    with pytest.raises(RunInterruptedError):
        run(write(home), prompts="mine.jsonl")
    mine.write_text("\n".join(lines[::-1]))
    ownership._split.cache_clear()  # As in another process.
    with pytest.raises(RunError, match="other prompts"):
        run(write(home), prompts="mine.jsonl")


def test_held_out_rows_of_a_file_are_not_trained_on(home: Path) -> None:
    mine = home / "mine.jsonl"
    mine.write_text("\n".join(json.dumps({"prompt": f"{i}+1=", "answer": ""}) for i in range(40)))
    settings = local_settings(write(home), "mine.jsonl", {}, home)
    assert settings.data.source == str(mine)
    trained = {row.prompt for row in training_prompts(settings)}
    held = {row.prompt for row in evaluation_prompts(settings)}
    assert len(held) == 10
    assert len(trained) == 30
    assert not trained & held


def test_every_task_has_its_share_of_the_built_in_prompts() -> None:
    settings = Settings.from_mapping({"data": {"prompts_per_client": 400, "heterogeneity": 0.01}})
    tasks = [row.columns["task"] for row in training_prompts(settings)]
    assert len(tasks) == 400
    assert all(tasks.count(task) > 60 for task in settings.data.tasks)


def test_settings_of_privacy_do_not_stand_in_the_way(home: Path) -> None:
    """Steps and prompt-level privacy cannot go together; here there is no privacy."""
    text = write(home).read_text().replace('unit = "none"', 'unit = "prompt"')
    settings = local_settings(write(home, text), "", {"grpo.steps": 4}, home)
    assert settings.privacy.unit == "none"


def test_a_warning_is_told_once_and_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STATE_EVERY", 1)
    options = {"overrides": {"grpo.learning_rate": 0.5}}
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    with pytest.raises(RunInterruptedError):
        run(write(home), **options)
    path, again = run(write(home), **options)
    told = [row.message for row in read_training(path).warnings]
    assert len(told) == len(set(told))
    assert sum("grpo.learning_rate = 0.5 is far off" in message for message in told) == 1
    # The second run repeats it in its closing report alone.
    assert "\nwarning: grpo.learning_rate" not in again
    assert "warning at step 0: grpo.learning_rate" in " ".join(again.split())


def test_warnings_of_others_go_their_own_way(home: Path) -> None:
    told: list[str] = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with training_warnings(told.append):
            warnings.warn("mine", TrainingWarning, stacklevel=1)
            warnings.warn("theirs", UserWarning, stacklevel=1)
    assert told == ["mine"]
    assert [str(warning.message) for warning in seen] == ["theirs"]


def test_a_reward_that_fails_on_the_way_names_itself_and_no_prompt(home: Path) -> None:
    (home / "judge.py").write_text(
        "calls = []\n"
        "def score(completions, **columns):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 4:\n"
        "        raise ValueError(completions[0])\n"
        "    return [float(len(c)) for c in completions]\n"
    )
    with pytest.raises(RunFailedError, match="score") as failed:
        run(write(home), overrides={"reward.functions": "judge.py:score"})
    assert "the same command resumes" in failed.value.cure
    completions = {row["completion"] for row in rows(home / "runs/small/completions.jsonl")}
    assert not [text for text in completions if len(text) > 2 and text in str(failed.value)]


def test_a_mistake_is_refused_before_anything_is_written(home: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run(write(home), prompts="none.jsonl")
    assert not (home / "runs").exists()


def test_figures_that_are_not_finite_are_null(tmp_path: Path) -> None:
    figures = {"loss": float("nan"), "rewards": {"a": float("inf"), "b": 1.0}, "step": 3}
    assert finite(figures) == {"loss": None, "rewards": {"a": None, "b": 1.0}, "step": 3}


def test_nothing_before_the_first_state_survives(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    journal = Journal(tmp_path)
    journal.cut(1)
    assert (tmp_path / "steps.jsonl").read_text() == '{"step": 1}\n'
    journal.cut(-1)
    assert (tmp_path / "steps.jsonl").read_text() == ""
