"""Whose prompts are whose: a deployed node's own file, a simulated client's share, the server's
held-out ones, or all the others for who trains alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fedgrpo.data.failing import check_failing
from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.partition import dirichlet_weights, hold_out, partition_rows, rows_by_client
from fedgrpo.data.prompts import PromptRow, load_prompts, sort_rows, usable_prompts
from fedgrpo.data.sources import Source
from fedgrpo.data.tasks import generate
from fedgrpo.data.units import check_unit_column
from fedgrpo.ground.chats import plain_text
from fedgrpo.ground.errors import DataError
from fedgrpo.settings import Scalar, Settings

LARGE = 10
"""Times the prompts of others that ``simulation.large`` clients have."""


def node_prompts(settings: Settings, node_config: Mapping[str, Scalar]) -> list[PromptRow]:
    """Prompts of one node.

    A node that names a file in its own configuration (``prompts``) uses that and nothing else. A
    simulated one (``partition-id``) gets its share of the scenario's source, units whole; of
    built-in tasks, ``data.prompts_per_client`` different prompts, or ten times as many
    (``simulation.large``).

    Raises
    ------
    DataError
        If the node names neither, or its prompts cannot be used.
    """
    if "prompts" in node_config:
        return load_prompts(_own(settings, node_config))
    if "partition-id" not in node_config:
        raise DataError(
            "this node names no prompts",
            cure="name them in site.toml: prompts = 'prompts.jsonl'",
        )
    partition, clients = int(node_config["partition-id"]), int(node_config["num-partitions"])
    data = settings.data
    if data.source != "tasks":
        return _shares(settings, clients)[partition]
    tasks, mix = _mixture(settings, partition, clients)
    # Any two seeds differ, so clients draw different prompts; none can draw a held-out one.
    seed = settings.seed * 1_000_003 + partition + 1
    count = data.prompts_per_client
    if 0 <= partition - settings.simulation.byzantine < settings.simulation.large:
        count *= LARGE
    return generate(tasks, count, mix, seed, held_out=False, distinct=True)


def _mixture(settings: Settings, partition: int, clients: int) -> tuple[list[str], list[float]]:
    """Built-in tasks of one simulated client, and the share of each."""
    held = settings.data.held()
    owned = [task for task, count in held.items() for _ in range(count)]
    if (from_last := clients - 1 - partition) < len(owned):
        return [owned[from_last]], [1.0]
    tasks = [task for task in settings.data.tasks if task not in held]
    concentration = settings.data.heterogeneity
    weights = dirichlet_weights(len(tasks), clients, concentration, settings.seed)
    return tasks, weights[partition].tolist()


def usable_node_prompts(
    settings: Settings, node_config: Mapping[str, Scalar], limit: RowLimit
) -> tuple[list[PromptRow], int]:
    """The same after the charge: usable rows, and how many are not, be it for their size.

    Raises
    ------
    DataError
        If the node names no prompts, or they cannot be read at all.
    """
    if "prompts" in node_config:
        return usable_prompts(_own(settings, node_config), limit)
    return node_prompts(settings, node_config), 0


def prompts_stamp(node_config: Mapping[str, Scalar]) -> str:
    """Tell a node's prompts from others without opening them: configuration, size and time.

    A file that cannot be looked at gets an empty stamp, and is refused when it is opened.
    """
    configured = sorted((key, str(value)) for key, value in node_config.items())
    try:
        status = os.stat(Path(str(node_config["prompts"])).expanduser())
        written = [status.st_size, status.st_mtime_ns]
    except (KeyError, OSError):
        written = []
    return json.dumps([configured, written])


def evaluation_prompts(settings: Settings) -> list[PromptRow]:
    """Prompts that no client has, on which the server measures.

    Raises
    ------
    DataError
        If the source has too few rows.
    """
    wanted, data = settings.evaluation.prompts, settings.data
    if settings.evaluation.source:
        return _read_apart(settings)[:wanted]
    if data.source == "tasks":
        return generate(data.tasks, wanted, [1.0] * len(data.tasks), settings.seed, held_out=True)
    return _split(settings)[0]


def training_prompts(settings: Settings) -> list[PromptRow]:
    """Prompts of who trains alone: all of the source but the held-out ones. Of built-in tasks, as
    many as one client has, all tasks alike.

    Raises
    ------
    DataError
        If the source cannot be used or has too few rows.
    """
    data = settings.data
    if data.source != "tasks":
        return _split(settings)[1]
    weights = [1.0] * len(data.tasks)
    return generate(data.tasks, data.prompts_per_client, weights, settings.seed, held_out=False)


def all_prompts(settings: Settings) -> list[PromptRow]:
    """Every row that can be used, held out or not; of built-in tasks, those of who trains alone.

    Raises
    ------
    DataError
        See :func:`left_out`.
    """
    return training_prompts(settings) if settings.data.source == "tasks" else _read(settings)[0]


def left_out(settings: Settings) -> tuple[DataError, ...]:
    """Why rows of the scenario's source cannot be used, each named by its number: for whoever
    trains or simulates with them.

    Raises
    ------
    DataError
        If the source cannot be read, or more rows than ``data.max_failing`` says cannot be used.
    """
    data = settings.data
    return () if data.source == "tasks" else tuple(_read(settings)[1])


def held_out_and_trained_on(settings: Settings) -> str:
    """Say how many held-out prompts of a source of their own are also trained on; empty if none is,
    or if they come from the same source, of which they are taken away.

    Raises
    ------
    DataError
        If a source cannot be read.
    """
    if not settings.evaluation.source or settings.data.source == "tasks":
        return ""
    trained = {plain_text(row.prompt) for row in training_prompts(settings)}
    held = evaluation_prompts(settings)
    both = sum(plain_text(row.prompt) in trained for row in held)
    return (
        f"{both} of {len(held)} held-out prompts of evaluation.source are in data.source, too: "
        "their rewards say how well they were learnt by heart. Take them out of one of the two, or "
        "leave evaluation.source out: prompts are then held out by themselves"
        if both
        else ""
    )


def _own(settings: Settings, node_config: Mapping[str, Scalar]) -> Source:
    data = settings.data.with_columns(str(node_config.get("columns", "")))
    return Source.of(data, str(node_config["prompts"]))


@lru_cache(maxsize=2)
def _read(settings: Settings) -> tuple[list[PromptRow], list[DataError]]:
    """The scenario's source: rows that can be used, and why others cannot."""
    return _sorted(Source.of(settings.data), settings.data.max_failing)


@lru_cache(maxsize=2)
def _read_apart(settings: Settings) -> list[PromptRow]:
    """Rows of ``evaluation.source`` that can be used."""
    data = settings.data
    return _sorted(Source.of(data, settings.evaluation.source), data.max_failing)[0]


def _sorted(source: Source, most: float) -> tuple[list[PromptRow], list[DataError]]:
    rows, failures = sort_rows(source)
    check_failing(failures, len(rows) + len(failures), most)
    return rows, failures


@lru_cache(maxsize=2)
def _split(settings: Settings) -> tuple[list[PromptRow], list[PromptRow]]:
    """Held-out rows of the scenario's source, and the rest."""
    rows = _read(settings)[0]
    check_unit_column(rows, settings.data.unit, settings.data.source)
    if settings.evaluation.source:
        return [], rows
    kept, held = hold_out(rows, settings.evaluation.prompts, settings.seed, settings.data.unit)
    return held, kept


@lru_cache(maxsize=2)
def _shares(settings: Settings, clients: int) -> list[list[PromptRow]]:
    """Each simulated client's share of what is not held out."""
    data, rows = settings.data, _split(settings)[1]
    if data.client_column:
        return rows_by_client(rows, clients, data.client_column)
    return partition_rows(
        rows,
        clients,
        by=data.partition_by,
        concentration=data.heterogeneity,
        seed=settings.seed,
        unit=data.unit,
    )
