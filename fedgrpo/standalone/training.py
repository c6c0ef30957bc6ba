"""``fedgrpo train``: from a settings file to an adapter, without a federation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from fedgrpo.ground.callbacks import tell
from fedgrpo.ground.errors import FedGRPOError, RunFailedError, RunInterruptedError
from fedgrpo.ground.run_files import ADAPTER, BEST_ADAPTER, SHARED_ADAPTER
from fedgrpo.grpo.checkpoint import load_trainer, save_trainer
from fedgrpo.grpo.learning.health import glance
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.model.export.card import RunFacts, write_card
from fedgrpo.model.memory import peak_gpu_memory, peak_memory
from fedgrpo.report.console import conclude, shown
from fedgrpo.report.records import (
    NO_PRIVACY,
    STEP,
    RewardSummary,
    RoundRow,
    Summary,
    TrainingSummary,
    best_evaluation,
)
from fedgrpo.report.run_directory import choose
from fedgrpo.report.trackers import Tracked, check_trackers, tracking
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario
from fedgrpo.standalone.interruption import stop_requests, training_warnings
from fedgrpo.standalone.preparation import Preparation, prepare
from fedgrpo.standalone.rows import measured, step_row

STATE_EVERY = 25
"""Most steps that a killed run has to take again."""
STATE = "state.pt"
"""The trainer's state, from which the same command resumes."""


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
        If training began and failed, or no step of it changed the adapter.
    RunInterruptedError
        On Ctrl-C or SIGTERM, after the step under way.
    """
    settings = local_settings(scenario, prompts, overrides or {}, Path.cwd())
    return conduct(
        Job(scenario.stem, settings, "train", lambda: prepare(settings)),
        run_dir=run_dir,
        fresh=fresh,
        show_completions=show_completions,
        console=console,
        callbacks=callbacks,
    )


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes
    ----------
    name:
        Of the run, and of its directory unless another one is given.
    settings:
        Of the run.
    command:
        Which fedgrpo command resumes it.
    prepare:
        Loads what training needs.
    furnish:
        Called with the directory, once it is the run's.
    """

    name: str
    settings: Settings
    command: str
    prepare: Callable[[], Preparation]
    furnish: Callable[[Path], None] = lambda _: None


def conduct(
    job: Job,
    *,
    run_dir: Path | None = None,
    fresh: bool = False,
    show_completions: bool = False,
    console: Console | None = None,
    callbacks: Sequence[object] = (),
) -> Path:
    """Train to the end and report; parameters and errors as for :func:`train`."""
    console, settings = console or Console(), job.settings
    chosen = choose(
        job.name, settings, run_dir=run_dir, fresh=fresh, base=Path.cwd(), command=job.command
    )
    check_trackers(settings.run.report_to)
    early: list[str] = []
    with training_warnings(early.append):
        parts = job.prepare()
    with chosen.claim(settings):
        job.furnish(chosen.path)
        session = Session(parts, RunWriter(chosen.path), tuple(callbacks))
        tracked = Tracked(chosen.path, settings.to_run_config())
        session.carry_on()
        session.warn(early)
        verb = "resumes" if parts.trainer.steps_done else "begins"
        console.print(f"{job.name} {verb} in {chosen.path}", highlight=False, soft_wrap=True)
        console.print(f"privacy {NO_PRIVACY}", highlight=False, soft_wrap=True)
        with (
            tracking(settings.run.report_to, tracked) as session.trackers,
            shown(chosen.path, parts.steps, console, show_completions=show_completions),
        ):
            session.run()
            session.writer.summary(summarise(settings, parts, session.writer.rows()))
        conclude(chosen.path, console, untaught(parts.trainer.history))
    return chosen.path


def untaught(history: Sequence[StepMetrics]) -> str:
    """What to mend where no step could learn, as the last one tells."""
    told = glance(history[-1]) if history else []
    return " ".join([*told, "Mend what kept it from learning, and begin anew."])


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


@dataclass
class Session:
    """One process's part of a run."""

    parts: Preparation
    writer: RunWriter
    callbacks: tuple[object, ...] = ()
    trackers: tuple[object, ...] = ()
    best: float = float("-inf")
    """Largest held-out reward so far, sampled."""
    told: set[str] = field(default_factory=set)
    """Warnings that a row has, or will have."""
    warnings: list[str] = field(default_factory=list)
    """Warnings for the next row."""

    def carry_on(self) -> None:
        """Go back to the last state, and forget what was written after it."""
        state = self.writer.run_dir / STATE
        if state.exists():
            load_trainer(self.parts.trainer, state)
        self.writer.truncate(self.parts.trainer.steps_done if state.exists() else -1)
        for row in self.writer.rows():
            self.told.update(row.warnings)
            self.best = max(self.best, self.best if row.sampled is None else row.sampled)

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
            try:
                self._steps(stop)
            except FedGRPOError as error:
                cure = f"{error.cure}; the same command resumes".removeprefix("; ")
                self.writer.fail(error.problem, cure)
                raise RunFailedError(error.problem, cure=cure) from error
        self._save_adapter(ADAPTER)
        if trainer.steps_done < self.parts.steps:
            problem = f"interrupted after step {trainer.steps_done} of {self.parts.steps}"
            self.writer.interrupt(problem, cure := "the same command resumes")
            raise RunInterruptedError(problem, cure=cure)

    def _steps(self, stop: Callable[[], bool]) -> None:
        trainer = self.parts.trainer
        if not self.writer.rows():
            self._note(None)
        self._say(STEP)
        if not stop():
            left = self.parts.steps - trainer.steps_done
            for metrics in trainer.train(left, callbacks=self.callbacks):
                self._note(metrics)
                if stop():
                    break
        self._save()

    def _note(self, metrics: StepMetrics | None) -> None:
        """Write a step's row, with its evaluation if there is one to make; None before the first.

        The row comes last: only with it have the step and its evaluation taken place.
        """
        step = self.parts.trainer.steps_done
        row = step_row(step, metrics, self.warnings)
        if self.parts.is_due(step):
            row = self._measure(row)
        self.warnings = []
        self.writer.row(row)
        tell(self.trackers, "on_round", row)
        if row.sampled is not None or step % STATE_EVERY == 0:
            self._save()

    def _measure(self, row: RoundRow) -> RoundRow:
        self._say("evaluate")
        started, parts = time.monotonic(), self.parts
        at_end = row.round in (0, parts.steps)
        found = parts.held_out.evaluate(parts.settings.evaluation, at_end=at_end)
        row = measured(row, found, time.monotonic() - started)
        self.writer.samples(row.round, found.samples)
        if row.sampled is not None and row.sampled > self.best:
            self.best = row.sampled
            self._save_adapter(BEST_ADAPTER)
        self._say(STEP)
        return row

    def _save_adapter(self, name: str) -> None:
        trainer, folder = self.parts.trainer, self.writer.run_dir / name
        trainer.save(folder)
        facts = RunFacts(
            settings=self.parts.settings,
            rounds=trainer.steps_done,
            layout=trainer.adapter.layout,
            alone=True,
            personal=(self.writer.run_dir / SHARED_ADAPTER).is_dir(),
        )
        write_card(folder, facts)

    def _say(self, phase: str) -> None:
        self.writer.phase(self.parts.trainer.steps_done, self.parts.steps, phase)

    def warn(self, messages: Sequence[str]) -> None:
        """Put warnings into the next row, each once in a run."""
        for message in messages:
            self._warn(message)

    def _warn(self, message: str) -> None:
        if message not in self.told:
            self.told.add(message)
            self.warnings.append(message)

    def _save(self) -> None:
        save_trainer(self.parts.trainer, self.writer.run_dir / STATE)


def summarise(settings: Settings, parts: Preparation, rows: Sequence[RoundRow]) -> Summary:
    """Sum finished training up from the rows that it left."""
    evaluated = [row for row in rows if row.sampled is not None]
    first, last, best = evaluated[0], evaluated[-1], best_evaluation(rows)
    trainer = parts.trainer
    # A batch that serves several steps is repeated in their rows; only the first one sampled it.
    fresh = [row for row in rows if row.metrics.get("tokens_per_second")]
    prompts = min(settings.grpo.prompts_per_step, len(trainer.collector.rows))
    tokens = int(sum(row.metrics["tokens"] for row in fresh))
    steps_s = sum(row.seconds.get(STEP, 0.0) for row in rows)
    wall_s = sum(sum(row.seconds.values()) for row in rows)
    return Summary(
        reward=RewardSummary.between(first, last),
        rounds=trainer.steps_done,
        wall_s=wall_s,
        overhead_share=0.0,
        privacy=[],
        robust=None,
        dropped=0,
        skipped_rounds=sum(not row.applied for row in rows if row.round),
        adapter=ADAPTER,
        settings=settings.fingerprint(),
        version=version("fedgrpo"),
        training=TrainingSummary(
            best_step=best.round,
            best=best.sampled or 0.0,
            best_greedy=best.greedy or 0.0,
            completions=len(fresh) * prompts * settings.grpo.group_size,
            tokens=tokens,
            tokens_per_second=tokens / steps_s,
            peak_memory_bytes=peak_memory(),
            peak_gpu_bytes=peak_gpu_memory(trainer.adapter.base.device),
        ),
    )
