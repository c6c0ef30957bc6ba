"""``fedgrpo train``: from a settings file to an adapter, without a federation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from fedgrpo.ground.errors import FedGRPOError, RunFailedError, RunInterruptedError
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.records import to_json
from fedgrpo.grpo.checkpoint import load_trainer, save_trainer
from fedgrpo.grpo.held_out import Answers
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.model.memory import peak_gpu_memory, peak_memory
from fedgrpo.report.run_directory import choose
from fedgrpo.report.training import (
    ADAPTER,
    BEST_ADAPTER,
    OUTCOME,
    STATE,
    EvaluationRow,
    Rewards,
    SampleRow,
    TrainingSummary,
    WarningRow,
    best_evaluation,
    read_training,
)
from fedgrpo.report.training_console import TrainingView, report
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario
from fedgrpo.standalone.interruption import stop_requests, training_warnings
from fedgrpo.standalone.journal import Journal, finite
from fedgrpo.standalone.preparation import Preparation, prepare

STATE_EVERY = 25
"""Most steps that a killed run has to take again."""
SAMPLES = 8
"""Held-out prompts whose completions are written down at each evaluation."""
NO_PRIVACY = "none: the adapter is as private as the prompts that it was trained on"


def train(
    scenario: Path,
    *,
    prompts: str = "",
    overrides: Mapping[str, object] | None = None,
    run_dir: Path | None = None,
    fresh: bool = False,
    show_completions: bool = False,
    console: Console | None = None,
    callbacks: Sequence[object] = (),
) -> Path:
    """Train an adapter on one machine and report on it. No privacy is applied.

    The same call resumes a run that was killed or interrupted, to the bit on the same machine.

    Parameters
    ----------
    scenario:
        TOML file of settings, the same as a federation reads.
    prompts:
        Takes the place of ``data.source``.
    overrides:
        Dotted keys with values that take the place of the scenario's.
    run_dir:
        Where to write. The default is ``runs/SCENARIO``, with a number if that one is finished.
    fresh:
        Begin a new run beside an unfinished one.
    show_completions:
        Print a few held-out prompts with their completions at each evaluation.
    console:
        Where to show progress. The default is standard output.
    callbacks:
        Told of each step: see :class:`fedgrpo.ground.callbacks.Callback`.

    Returns
    -------
    Path
        The run directory.

    Raises
    ------
    FedGRPOError
        Before the start, of the kind that fits.
    RunFailedError
        If training began and failed.
    RunInterruptedError
        On Ctrl-C or SIGTERM, after the step under way.
    """
    console, cwd = console or Console(), Path.cwd()
    settings = local_settings(scenario, prompts, overrides or {}, cwd)
    chosen = choose(
        scenario.stem,
        settings,
        run_dir=run_dir,
        fresh=fresh,
        base=cwd,
        command="train",
    )
    early: list[str] = []
    with training_warnings(early.append):
        parts = prepare(settings)
    with chosen.claim(settings):
        journal = Journal(chosen.path)
        _carry_on(parts, journal)
        verb = "resumes" if parts.trainer.steps_done else "begins"
        console.print(f"{scenario.stem} {verb} in {chosen.path}", highlight=False, soft_wrap=True)
        console.print(f"privacy {NO_PRIVACY}", highlight=False, soft_wrap=True)
        with TrainingView(parts.steps, console, show_completions=show_completions) as view:
            Session(parts, journal, view, tuple(callbacks), tuple(early)).run()
        summary = summarise(settings, parts, journal)
        replace_file(chosen.path / OUTCOME, f"{to_json(summary)}\n".encode())
        report(chosen.path, console)
    return chosen.path


def local_settings(
    scenario: Path, prompts: str, overrides: Mapping[str, object], base: Path
) -> Settings:
    """Read a scenario for training alone: whatever it says of privacy, none is applied.

    Raises
    ------
    SettingsError
        For every key or value that is not valid.
    """
    source = {"data.source": prompts} if prompts else {}
    return load_scenario(scenario, {**overrides, **source, "privacy.unit": "none"}, base)


@dataclass(frozen=True)
class Session:
    """One process's part of a run."""

    parts: Preparation
    journal: Journal
    view: TrainingView
    callbacks: tuple[object, ...] = ()
    early: tuple[str, ...] = ()
    """Warnings from before the start."""

    def run(self) -> None:
        """Take every step that is left.

        Raises
        ------
        RunFailedError
            If a step or an evaluation fails.
        RunInterruptedError
            If the user asked to stop.
        """
        trainer = self.parts.trainer
        with stop_requests() as stop, training_warnings(self._warn):
            for sentence in self.early:
                self._warn(sentence)
            try:
                self._steps(stop)
            except FedGRPOError as error:
                cure = f"{error.cure}; the same command resumes".removeprefix("; ")
                raise RunFailedError(error.problem, cure=cure) from error
        trainer.save(self.journal.run_dir / ADAPTER)
        if trainer.steps_done < self.parts.steps:
            raise RunInterruptedError(
                f"interrupted after step {trainer.steps_done} of {self.parts.steps}",
                cure="the same command resumes",
            )

    def _steps(self, stop: Callable[[], bool]) -> None:
        trainer = self.parts.trainer
        self._measure_if_due()
        if not stop():
            left = self.parts.steps - trainer.steps_done
            for metrics in trainer.train(left, callbacks=self.callbacks):
                self._note(metrics)
                if stop() and trainer.steps_done < self.parts.steps:
                    break
                self._measure_if_due()
        self._save()

    def _note(self, metrics: StepMetrics) -> None:
        self.journal.step(metrics)
        self.view.step(finite(metrics.as_row()))
        if metrics.step % STATE_EVERY == 0:
            self._save()

    def _measure_if_due(self) -> None:
        """Measure the adapter, unless it was measured at this step before an interruption."""
        step, known = self.parts.trainer.steps_done, self.journal.evaluations()
        if not self.parts.is_due(step) or any(row.step == step for row in known):
            return
        started = time.monotonic()
        held_out = self.parts.held_out
        sampled, greedy = held_out.sampled(), held_out.greedy()
        row = EvaluationRow(
            step=step,
            sampled=sampled.reward,
            greedy=greedy.reward,
            sampled_rewards=finite(sampled.by_function()),
            greedy_rewards=finite(greedy.by_function()),
            kl=held_out.drift(sampled),
            seconds=time.monotonic() - started,
        )
        if best_evaluation([*known, row]) == row:
            self.parts.trainer.save(self.journal.run_dir / BEST_ADAPTER)
        samples = self._samples(sampled)
        self.journal.evaluation(row, samples)
        self._save()
        self.view.evaluation(row, samples)

    def _samples(self, answers: Answers) -> Sequence[SampleRow]:
        collector, rewards = self.parts.held_out.collector, answers.rewards
        texts = collector.policy.decode(answers.rollout)
        return [
            SampleRow(
                step=self.parts.trainer.steps_done,
                prompt=row.for_model(),
                completion=text,
                reward=float(rewards.total[i]),
                rewards=finite({name: float(v[i]) for name, v in rewards.per_function.items()}),
                extra={name: str(values[i]) for name, values in rewards.notes.extras.items()},
            )
            for i, (row, text) in enumerate(zip(collector.rows, texts, strict=True))
            if i < SAMPLES
        ]

    def _warn(self, message: str) -> None:
        if self.journal.warning(WarningRow(step=self.parts.trainer.steps_done, message=message)):
            self.view.warning(message)

    def _save(self) -> None:
        self.journal.sync()
        save_trainer(self.parts.trainer, self.journal.run_dir / STATE)


def _carry_on(parts: Preparation, journal: Journal) -> None:
    """Go back to the last state, and forget what was written after it."""
    state = journal.run_dir / STATE
    if state.exists():
        load_trainer(parts.trainer, state)
    journal.cut(parts.trainer.steps_done if state.exists() else -1)


def summarise(settings: Settings, parts: Preparation, journal: Journal) -> TrainingSummary:
    """Sum finished training up from the rows that it left."""
    training = read_training(journal.run_dir)
    measured = training.evaluations
    first, last, best = measured[0], measured[-1], best_evaluation(measured)
    trainer = parts.trainer
    # A batch that serves several steps is repeated in their rows; only the first one sampled it.
    fresh = [row for row in training.steps if row["tokens_per_second"]]
    prompts = min(settings.grpo.prompts_per_step, len(trainer.collector.rows))
    tokens = sum(row["tokens"] for row in fresh)
    spent = sum(row["seconds"] for row in training.steps)
    return TrainingSummary(
        steps=trainer.steps_done,
        sampled=Rewards(first.sampled, last.sampled, best.sampled),
        greedy=Rewards(first.greedy, last.greedy, best.greedy),
        best_step=best.step,
        completions=len(fresh) * prompts * settings.grpo.group_size,
        tokens=tokens,
        tokens_per_second=tokens / spent,
        seconds=spent + sum(row.seconds for row in measured),
        peak_memory_bytes=peak_memory(),
        peak_gpu_bytes=peak_gpu_memory(trainer.adapter.base.device),
        privacy=NO_PRIVACY,
        settings=settings.fingerprint(),
        version=version("fedgrpo"),
    )
