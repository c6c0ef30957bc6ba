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
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import pytest
from rich.console import Console

from fedgrpo.data import ownership
from fedgrpo.data.ownership import evaluation_prompts, training_prompts
from fedgrpo.ground.errors import DataError, RunError, RunFailedError, RunInterruptedError
from fedgrpo.grpo import GRPOTrainer, TrainingWarning
from fedgrpo.report.reader import read_rows, read_run, read_status
from fedgrpo.report.records import RoundRow
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Settings
from fedgrpo.standalone import train, training
from fedgrpo.standalone.interruption import training_warnings
from fedgrpo.standalone.rows import step_row
from fedgrpo.standalone.training import local_settings
from tests.models import tiny_trainer
from tests.standalone.scenario import VARIED, assert_same, rows, write

pytestmark = pytest.mark.slow

DATED = """
rounds = 3
[data]
source = "dated.jsonl"
chat_template = "{{ strftime_now('%d%m%Y') }}+{% for m in messages %}{{ m.content }}{% endfor %}"
[grpo]
prompts_per_step = 2
group_size = 4
max_completion_length = 4
[reward]
functions = "varied.py:varied"
[evaluation]
prompts = 2
every = 3
[privacy]
unit = "none"
"""


class AnotherDay(datetime):
    """The clock that transformers gives to chat templates, some years on."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2031, 5, 6, tzinfo=tz)


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
    found = read_run(path)
    assert [row.round for row in found.rows] == list(range(9))
    evaluated = [row for row in found.rows if row.sampled is not None]
    assert [row.round for row in evaluated] == [0, 3, 6, 8]
    assert all(row.held_out_rewards["exact_match"]["sampled"] == row.sampled for row in evaluated)
    for row in evaluated:
        assert set(row.held_out_by) <= {"add", "maximum", "reverse", "sort"}
        shares = [means["sampled"] for means in row.held_out_by.values()]
        assert min(shares) <= row.sampled <= max(shares)
    summary = found.summary
    assert summary is not None
    assert summary.training is not None
    assert summary.reward.by.keys() == evaluated[0].held_out_by.keys()
    assert summary.rounds == 8
    # Two passes over each batch of 3 x 4 completions.
    assert summary.training.completions == 4 * 3 * 4
    assert summary.training.tokens == sum(row.metrics["tokens"] for row in found.rows[1::2])
    assert summary.training.best == max(row.sampled or 0.0 for row in evaluated)
    assert found.status is not None
    assert found.status.state == "finished"
    for name in ("adapter", "adapter-best"):
        assert (path / name / "adapter_model.safetensors").exists()
    assert (path / "report.png").stat().st_size > 10_000
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
    ours, theirs = ([row.metrics for row in read_rows(each)] for each in (path, whole[0]))
    for metrics in (*ours, *theirs):
        metrics.pop("tokens_per_second", None)
    assert ours == theirs


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
    assert [row.round for row in read_rows(home / "runs/small")] == list(range(step + 1))
    status = read_status(home / "runs/small")
    assert status is not None
    assert status.state == "interrupted"
    path, printed = run(write(home))
    assert "resumes in" in printed
    assert_same(path, whole[0])


def test_a_chat_template_that_tells_the_date_stops_no_run_on_another_day(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[{"role": "user", "content": f"{i}+1="}] for i in range(9)]
    lines = [json.dumps({"prompt": p, "answer": str(i + 1)}) for i, p in enumerate(prompts)]
    (home / "dated.jsonl").write_text("\n".join(lines))
    (home / "varied.py").write_text(VARIED)
    scenario = write(home, DATED)
    whole, _ = run(scenario, run_dir=home / "whole")
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    with pytest.raises(RunInterruptedError):
        run(scenario)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", AnotherDay)
    path, printed = run(scenario)
    assert "resumes in" in printed
    assert_same(path, whole)


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
    with (home / "runs/small/metrics.jsonl").open("a") as file:
        file.write('{"round": 5, "rew')  # Torn.
    path, _ = run(write(home))
    assert_same(path, whole[0])


def test_an_evaluation_that_was_cut_short_is_made_again(
    whole: tuple[Path, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    append = RunWriter.row

    def die(self: RunWriter, row: RoundRow) -> None:
        if row.round == 6:  # Its completions are on disk already.
            raise Killed
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(training, "STATE_EVERY", 1)
        patch.setattr(RunWriter, "row", die)
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
    assert not (path / "summary.json").exists()
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
    for kept in (ownership._read, ownership._split):  # As in another process.
        kept.cache_clear()
    with pytest.raises(RunError, match="trainer's state is of other prompts\n") as caught:
        run(write(home), prompts="mine.jsonl")
    assert "carry on with the prompts" in caught.value.cure


def test_a_run_goes_on_where_its_folder_was_moved_and_with_more_time_for_its_rewards(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = home / "here" / "mine.jsonl"
    mine.parent.mkdir()
    lines = [json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) for i in range(40)]
    mine.write_text("\n".join(lines))
    monkeypatch.chdir(mine.parent)
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    (mine.parent / "varied.py").write_text(VARIED)
    taught = {"reward.functions": "varied.py:varied"}
    with pytest.raises(RunInterruptedError):
        run(write(mine.parent), prompts="mine.jsonl", overrides=taught)
    mine.parent.rename(home / "there")
    monkeypatch.chdir(home / "there")
    changed = {**taught, "reward.timeout_s": 77.0, "federation.wait_s": 7.0}
    path, text = run(Path("small.toml"), prompts="mine.jsonl", overrides=changed)
    assert "small resumes in" in text
    assert [row["round"] for row in rows(path / "metrics.jsonl")] == list(range(9))


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
    told = [message for row in read_rows(path) for message in row.warnings]
    assert len(told) == len(set(told))
    assert sum("grpo.learning_rate = 0.5 is far off" in message for message in told) == 1
    assert again.count("warning at step 1: grpo.learning_rate") == 1


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
        "    if len(calls) > 24:\n"
        "        raise ValueError(completions[0])\n"
        "    return [float(len(c)) for c in completions]\n"
    )
    with pytest.raises(RunFailedError, match="score") as failed:
        run(write(home), overrides={"reward.functions": "judge.py:score"})
    assert "the same command resumes" in failed.value.cure
    completions = {row["completion"] for row in rows(home / "runs/small/completions.jsonl")}
    assert not [text for text in completions if len(text) > 2 and text in str(failed.value)]


def test_training_of_which_no_step_counted_has_failed(home: Path) -> None:
    """As a simulation has of which no round did: a script that goes on would go on with nothing."""
    (home / "same.py").write_text("def same(completions):\n    return [1.0] * len(completions)\n")
    with pytest.raises(
        RunFailedError, match="none of 2 steps counted; the last one: nothing could"
    ) as told:
        run(write(home), overrides={"rounds": 2, "reward.functions": "same.py:same"})
    assert "of the groups every completion has the same reward" in told.value.cure
    assert told.value.cure.endswith("Mend what kept it from learning, and begin anew.")
    assert (home / "runs/small/adapter").is_dir()


def test_a_mistake_is_refused_before_anything_is_written(home: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run(write(home), prompts="none.jsonl")
    assert not (home / "runs").exists()


def test_figures_that_are_not_finite_are_left_out_and_nested_ones_named(
    whole: tuple[Path, str],
) -> None:
    trainer = tiny_trainer()
    (metrics,) = trainer.train(1)
    told = replace(metrics, loss=float("nan"), rewards={"a": float("inf"), "b": 1.0})
    row = step_row(1, told, ["hot"])
    assert row.alone
    assert "loss" not in row.metrics
    assert {key for key in row.metrics if key.startswith("rewards/")} == {"rewards/b"}
    assert row.metrics["reward"] == metrics.reward
    assert not {"step", "seconds", "applied"} & set(row.metrics)
    assert row.seconds == {"step": metrics.seconds}
    assert row.warnings == ["hot"]


def test_trackers_are_told_of_each_step_and_each_evaluation(
    whole: tuple[Path, str], home: Path
) -> None:
    (home / "mine.py").write_text(RECORDER)
    place = f"{home / 'mine.py'}:Recorder"
    path, _ = run(write(home), overrides={"run.report_to": place})
    told = [json.loads(line) for line in (path / "told.jsonl").read_text().splitlines()]
    assert [step for step, _ in told[:-1]] == list(range(9))
    assert told[-1] == "closed"
    assert [step for step, names in told[:-1] if "eval/reward" in names] == [0, 3, 6, 8]
    assert {"train/reward", "train/completions/mean_length", "train/step_time"} <= set(told[1][1])
    assert_same(path, whole[0])  # Telling changes nothing.


RECORDER = """
import json
from fedgrpo.report.trackers import Tracker
class Recorder(Tracker):
    def __init__(self, run):
        self.path = run.directory / "told.jsonl"
    def log(self, figures, step):
        self.write([step, figures])
    def close(self):
        self.write("closed")
    def write(self, what):
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\\n")
"""
