"""Trackers that people use elsewhere: TensorBoard, trackio, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fedgrpo.ground.errors import SettingsError
from fedgrpo.report.trackers.tracker import Tracked, Tracker, register_tracker

PROJECT = "fedgrpo"
MLFLOW_TAG, MLFLOW_BATCH = "fedgrpo.run", 100
"""By which a run is found again, and the most parameters that MLflow takes in one call."""

NEEDS = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}
"""Library and extra of each built-in tracker."""


@register_tracker("tensorboard")
class TensorBoard(Tracker):
    """Event files in the run directory's folder ``tensorboard``."""

    def __init__(self, run: Tracked) -> None:
        summary = _library("tensorboard.summary")
        self._writer = summary.Writer(str(run.directory / "tensorboard"))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._writer.close()


@register_tracker("trackio")
class Trackio(Tracker):
    """trackio's own store on this machine, or where its environment variables say; a Space that it
    makes is private.
    """

    def __init__(self, run: Tracked) -> None:
        self._run = _library("trackio").init(
            project=PROJECT,
            name=run.unique_name,
            config=dict(run.settings),
            resume="allow",
            private=True,
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._run.finish()


@register_tracker("wandb")
class WeightsAndBiases(Tracker):
    """Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine.

    It gets figures and settings: neither what is printed, which may show prompts, nor code.
    """

    def __init__(self, run: Tracked) -> None:
        wandb = _library("wandb")
        quiet = wandb.Settings(console="off", disable_code=True, disable_git=True)
        self._run = wandb.init(
            project=PROJECT,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.settings),
            settings=quiet,
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._run.finish()


@register_tracker("mlflow")
class MLflow(Tracker):
    """MLflow, where ``MLFLOW_TRACKING_URI`` says: a file ``mlflow.db`` in the folder that the
    command is called in, if it says nothing.
    """

    def __init__(self, run: Tracked) -> None:
        mlflow = _library("mlflow")
        self._client, self._entities = mlflow.MlflowClient(), mlflow.entities
        found = self._client.get_experiment_by_name(PROJECT)
        place = found.experiment_id if found else self._client.create_experiment(PROJECT)
        begun = self._client.search_runs([place], f"tags.`{MLFLOW_TAG}` = '{run.id}'")
        self._run = begun[0].info.run_id if begun else self._begin(place, run)
        self._client.update_run(self._run, status="RUNNING")

    def _begin(self, place: str, run: Tracked) -> str:
        tags = {MLFLOW_TAG: run.id}
        made: str = self._client.create_run(place, run_name=run.name, tags=tags).info.run_id
        params = [self._entities.Param(key, str(v)[:500]) for key, v in run.settings.items()]
        for part in _parts(params):
            self._client.log_batch(made, params=part)
        return made

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        now = int(1000 * time.time())
        metrics = [
            self._entities.Metric(_plain(name), value, now, step) for name, value in figures.items()
        ]
        for part in _parts(metrics):
            self._client.log_batch(self._run, metrics=part)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._client.set_terminated(self._run)


def missing(name: str) -> SettingsError:
    """What to say of a built-in tracker whose library is not there."""
    return SettingsError(
        f"run.report_to = {name!r} needs the library {NEEDS[name]}, which is not installed",
        cure=f"pip install 'fedgrpo[{name}]', or leave it out of run.report_to",
    )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing(name.partition(".")[0]) from None


def _parts(things: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(things), MLFLOW_BATCH):
        yield things[first : first + MLFLOW_BATCH]


def _plain(name: str) -> str:
    """A name as MLflow takes it."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
