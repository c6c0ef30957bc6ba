"""What a sweep runs: a scenario under rows and columns of changes, each with every seed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import toml_of
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario

Changes = Mapping[str, object]

_KEYS = {"scenario", "seeds", "changes", "rows", "columns", "reference"}


@dataclass(frozen=True)
class Cell:
    """One run: its place in the table, its seed, and its settings."""

    row: str
    column: str
    seed: int
    settings: Settings

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a result must have to be this cell's."""
        return self.row, self.column, str(self.seed), self.settings.fingerprint()[:12]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read.

    Attributes
    ----------
    cells:
        Every run, seeds outermost: the first seed of all cells comes first.
    rows, columns:
        Labels in their order.
    reference:
        Label of the row that others are compared with; empty for none.
    """

    cells: tuple[Cell, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    reference: str


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep, with the settings of all its runs.

    Raises
    ------
    SettingsError
        If the file or one of its runs cannot be used. Names the run.
    """
    tree = _tree(path)
    rows, columns = _named(tree, "rows"), _named(tree, "columns")
    seeds, reference = tree.get("seeds", [0]), str(tree.get("reference", ""))
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise SettingsError(f"{path}: seeds = {seeds!r}", cure="write seeds = [0, 1, 2]")
    if reference and reference not in rows:
        raise SettingsError(
            f"{path}: reference = {reference!r} is none of the rows",
            cure=f"choose from {', '.join(rows)}",
        )
    scenario = path.parent / str(tree["scenario"])
    cells = tuple(_cells(scenario, tree.get("changes", {}), rows, columns, seeds))
    return Sweep(cells, tuple(rows), tuple(columns), reference)


def _tree(path: Path) -> dict[str, Any]:
    try:
        tree = toml_of(path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", cure="write a TOML file") from None
    if unknown := sorted(set(tree) - _KEYS):
        raise SettingsError(
            f"{path}: {unknown[0]} is no key of a sweep", cure=f"use {', '.join(sorted(_KEYS))}"
        )
    if "scenario" not in tree:
        raise SettingsError(
            f"{path} names no scenario", cure="write scenario = 'FILE.toml', beside this file"
        )
    return tree


def _named(tree: Mapping[str, Any], kind: str) -> dict[str, Changes]:
    """Changes by label; one without a change where there are none."""
    found = tree.get(kind) or {"": {}}
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise SettingsError(
            f"{kind} are no tables of changes",
            cure=f"write [{kind}] and then LABEL = {{ 'section.key' = value }}",
        )
    return found


def _cells(
    scenario: Path,
    changes: Changes,
    rows: Mapping[str, Changes],
    columns: Mapping[str, Changes],
    seeds: list[int],
) -> Iterator[Cell]:
    for seed, row, column in product(seeds, rows, columns):
        overrides = {**changes, **rows[row], **columns[column], "seed": seed}
        try:
            settings = load_scenario(scenario, overrides, Path.cwd())
        except SettingsError as error:
            where = " / ".join(filter(None, (row, column)))
            raise SettingsError(f"{where}: {error.problem}", cure=error.cure) from None
        yield Cell(row, column, seed, settings)
