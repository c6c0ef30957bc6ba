"""What trackers kept of a run, read back through each library."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedgrpo.report.trackers.libraries import MLFLOW_TAG, PROJECT
from fedgrpo.report.trackers.tracker import Tracked

Series = dict[str, dict[int, float]]
"""Values by name and step."""


def use_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every tracker keep what it is told below a folder, without network."""
    # trackio reads it once a process: the parent is that of all tests' folders.
    monkeypatch.setenv("TRACKIO_DIR", str(folder.parent / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")


def kept_by(name: str, run: Tracked) -> Series:
    """All that the tracker ``name`` knows of a run, which it must know as one."""
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for figure, step, value in READERS[name](run):
        found[figure][step] = value
    return dict(found)


def _tensorboard(run: Tracked) -> Iterator[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = EventAccumulator(str(run.directory / "tensorboard"))
    kept.Reload()
    for name in kept.Tags()["tensors"]:
        for event in kept.Tensors(name):
            yield name, event.step, event.tensor_proto.float_val[0]


def _trackio(run: Tracked) -> Iterator[tuple[str, int, float]]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (found,) = [each for each in trackio.Api().runs(PROJECT) if each.name == run.unique_name]
    for row in SQLiteStorage.get_logs(PROJECT, found.name):
        step = row.pop("step")
        yield from ((name, step, value) for name, value in row.items() if name != "timestamp")


def _wandb(run: Tracked) -> Iterator[tuple[str, int, float]]:
    files = sorted(run.directory.glob(f"wandb/offline-run-*-{run.id}/run-{run.id}.wandb"))
    for file in files:
        for record in _records(file.read_bytes()):
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): item.value_json for item in items}
            if "_step" in row:
                step = int(row["_step"])
                yield from ((name, step, float(v)) for name, v in row.items() if name[0] != "_")


def _records(content: bytes) -> Iterator[Any]:
    """Records of an offline run: LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, whole = 7, b""
    while at + 7 <= len(content):
        if (left := -at % 32768 or 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:
            yield Record.FromString(whole)
            whole = b""


def _mlflow(run: Tracked) -> Iterator[tuple[str, int, float]]:
    import mlflow

    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name(PROJECT)
    (found,) = client.search_runs([place.experiment_id], f"tags.`{MLFLOW_TAG}` = '{run.id}'")
    for name in found.data.metrics:
        for metric in client.get_metric_history(found.info.run_id, name):
            yield name, metric.step, metric.value


READERS: dict[str, Callable[[Tracked], Iterator[tuple[str, int, float]]]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
