"""Figures of a run in trackers that people use elsewhere: TensorBoard, trackio, Weights & Biases,
MLflow.

They are told of the rows that a server, or training alone, writes into its own run directory; a
node of a federation has none. The names are those under which TRL's GRPOTrainer (1.16) logs the
same figure; what has none there is under ``federation/``, ``phases/`` and ``fedgrpo/``.
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedgrpo.ground.callbacks import Callback
from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import Registry

LOG = logging.getLogger(__name__)

PROJECT = "fedgrpo"


@dataclass(frozen=True)
class Tracked:
    """The run that is told of: its directory, and its settings with dotted keys."""

    directory: Path
    settings: Mapping[str, bool | int | float | str]

    @property
    def name(self) -> str:
        """That of the directory."""
        return self.directory.name

    @property
    def id(self) -> str:
        """The same for every process that goes on with the run."""
        return sha256(str(self.directory.resolve()).encode()).hexdigest()[:16]


class Tracker(Callback, ABC):
    """Passes the figures of each row on, under TRL's names where it has one."""

    def on_round(self, row: Any) -> None:
        """Pass a row on: a federated round, or a step of training alone."""
        self.log(figures(row), row.round)

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Keep the figures of a round or step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left. The run is over, or goes on in another process."""


TRACKERS: Registry[Callable[[Tracked], Tracker]] = Registry("run.report_to")
register_tracker = TRACKERS.register


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
    """trackio's own store on this machine, or where its environment variables say."""

    def __init__(self, run: Tracked) -> None:
        self._run = _library("trackio").init(
            project=PROJECT, name=run.name, config=dict(run.settings), resume="allow"
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._run.finish()


@register_tracker("wandb")
class WeightsAndBiases(Tracker):
    """Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine."""

    def __init__(self, run: Tracked) -> None:
        self._run = _library("wandb").init(
            project=PROJECT,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.settings),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._run.finish()


@register_tracker("mlflow")
class MLflow(Tracker):
    """MLflow, where ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, run: Tracked) -> None:
        mlflow = _library("mlflow")
        self._client = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(PROJECT)
        place = found.experiment_id if found else self._client.create_experiment(PROJECT)
        self._run = self._client.create_run(place, run_name=run.name).info.run_id
        for key, value in run.settings.items():
            self._client.log_param(self._run, key, str(value)[:500])

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See :meth:`Tracker.log`."""
        for name, value in figures.items():
            self._client.log_metric(self._run, _plain(name), value, step=step)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._client.set_terminated(self._run)


NEEDS = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}
"""Library and extra of each built-in tracker."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown, or whose library is missing.

    Raises
    ------
    SettingsError
        Names the tracker, and the extra that brings its library.
    """
    for name in names:
        TRACKERS.check(name)
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            raise _missing(name)


@contextmanager
def tracking(names: Sequence[str], run: Tracked) -> Iterator[tuple[Tracker, ...]]:
    """Open trackers for a run, and close them whatever becomes of it.

    Parameters
    ----------
    names:
        ``run.report_to``: built-in names, or classes of a module or file of one's own.
    run:
        What they are told of.
    """
    check_trackers(names)
    with ExitStack() as stack:
        opened = []
        for name in names:
            opened.append(TRACKERS[name](run))
            stack.callback(_close, opened[-1])
        yield tuple(opened)


def _close(tracker: Tracker) -> None:
    try:
        tracker.close()
    except Exception:  # A run is finished without its tracker.
        LOG.exception("tracker %s could not be closed", type(tracker).__name__)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _missing(name.partition(".")[0]) from None


def _missing(name: str) -> SettingsError:
    return SettingsError(
        f"run.report_to = {name!r} needs the library {NEEDS[name]}, which is not installed",
        cure=f"pip install 'fedgrpo[{name}]', or leave it out of run.report_to",
    )


def _plain(name: str) -> str:
    """A name as MLflow takes it."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)


TRAINING = {
    "reward": "train/reward",
    "zero_signal": "train/frac_reward_zero_std",
    "truncated": "train/completions/clipped_ratio",
    "length": "train/completions/mean_length",
    "entropy": "train/entropy",
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "clip_low": "train/clip_ratio/low_mean",
    "clip_high": "train/clip_ratio/high_mean",
}
"""TRL's names for metrics that mean the same there."""
HELD_OUT = {"sampled": "eval/reward", "greedy": "eval/reward_greedy", "kl_base": "eval/kl"}
FEDERATED = ("clipping_norm", "update_norm", "epsilon", "finished", "dropped", "buckets", "members")


def figures(row: Any) -> dict[str, float]:
    """The figures of a row under the names that trackers show.

    Parameters
    ----------
    row:
        :class:`fedgrpo.report.records.RoundRow`.
    """
    # In a federation, KL is from the round's adapter and not from the start as TRL's.
    kl = {"kl": "train/kl"} if row.alone else {}
    found = {_metric(name, TRAINING | kl): value for name, value in row.metrics.items()}
    found |= {name: getattr(row, key) for key, name in HELD_OUT.items()}
    for group, ways in {**row.held_out_rewards}.items():
        found[f"eval/rewards/{_short(group)}/mean"] = ways.get("sampled")
    for group, ways in row.held_out_by.items():
        found |= {f"eval/{group}/{way}": value for way, value in ways.items()}
    found |= {f"phases/{phase}": seconds for phase, seconds in row.seconds.items()}
    if row.alone:
        found["train/step_time"] = row.seconds.get("step")
    else:
        found |= {f"federation/{name}": getattr(row, name) for name in FEDERATED}
        found |= {f"federation/bytes_{way}": count for way, count in row.bytes.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _metric(name: str, known: Mapping[str, str]) -> str:
    kind, _, function = name.partition("/")
    if kind == "rewards":
        return f"train/rewards/{_short(function)}/mean"
    if kind == "metrics":
        return f"fedgrpo/{name}"
    return known.get(name) or f"fedgrpo/{kind}{'/' if function else ''}{_short(function)}"


def _short(function: str) -> str:
    return function.rpartition(":")[2]
