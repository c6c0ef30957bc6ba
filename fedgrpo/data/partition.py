"""Split one pool of prompts over simulated clients, unequally in content and equally in size."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import Unit, units_of
from fedgrpo.ground.errors import DataError, SettingsError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Counts = NDArray[np.int64]


def dirichlet_weights(groups: int, clients: int, concentration: float, seed: int) -> Floats:
    """Draw how much of each group every client has, from a symmetric Dirichlet distribution.

    Hsu et al. 2019 (arXiv 1909.06335) draw from Dir(a p) with the groups' shares p. Here
    ``concentration`` is that of one group, as in most partitioners: a = ``groups * concentration``,
    p uniform.

    Parameters
    ----------
    groups, clients:
        How many of each.
    concentration:
        1e-6 to 1e6. Near 0 a client has one group only; large values make clients alike.
    seed:
        Public: the same for the same split.

    Returns
    -------
    ndarray of float64, shape (clients, groups)
        Not negative; every row sums to 1.

    Raises
    ------
    SettingsError
        If a number is out of range.
    """
    if groups < 1 or clients < 1:
        raise SettingsError(
            f"cannot split {groups} groups over {clients} clients", cure="have at least one of each"
        )
    _check_concentration(concentration)
    return np.random.default_rng(seed).dirichlet(np.full(groups, concentration), clients)


def partition_rows(
    rows: Sequence[PromptRow],
    clients: int,
    *,
    by: str,
    concentration: float,
    seed: int,
    unit: str = "",
) -> list[list[PromptRow]]:
    """Give every unit with all its rows to exactly one client, the same number to each (give or
    take one).

    With ``by``, a client's mix of that column's values is drawn from a Dirichlet distribution
    around their shares p in the units: Dir(groups * concentration * p). Clients then draw units
    without replacement, one client after another; a value that has run out passes its weight to the
    others (Hsu et al. 2019, arXiv 1909.06335). The last clients take what is left and so follow
    their mix least. A unit whose rows have several values counts for that of its first row. Equal
    numbers of units let one ``data.min_prompts`` hold for all, on which the stated epsilon rests.

    Parameters
    ----------
    rows:
        The pool.
    clients:
        Number of parts.
    by:
        Column whose values clients differ in. Empty shuffles the rows evenly.
    concentration:
        See :func:`dirichlet_weights`.
    seed:
        Public.
    unit:
        ``data.unit``: the column that makes units; empty takes the text.

    Raises
    ------
    DataError
        If a client would be empty, or a row lacks the column or has a list or mapping there.
    SettingsError
        If ``concentration`` or ``clients`` is out of range.
    """
    _check_concentration(concentration)
    if clients < 1:
        raise SettingsError(f"cannot split over {clients} clients", cure="have at least one")
    units = _in_order_of_appearance(units_of(rows, unit))
    if len(units) < clients:
        raise DataError(
            f"{len(rows)} rows of {len(units)} units leave some of {clients} clients without any",
            cure=f"give rows of at least {clients} units, or lower simulation.clients",
        )
    rng = np.random.default_rng(seed)
    sizes = np.full(clients, len(units) // clients) + (np.arange(clients) < len(units) % clients)
    pools = [rng.permutation(pool) for pool in _groups(rows, units, by)]
    counts = _allot(np.array([len(pool) for pool in pools]), sizes, concentration, rng)
    ends = np.cumsum(counts, axis=0)
    parts: list[list[PromptRow]] = []
    for first, last in zip(ends - counts, ends, strict=True):
        taken = [pool[a:b] for pool, a, b in zip(pools, first, last, strict=True)]
        order = rng.permutation(np.concatenate(taken))
        parts.append([rows[i] for u in order for i in units[u].rows])
    return parts


def rows_by_client(rows: Sequence[PromptRow], clients: int, column: str) -> list[list[PromptRow]]:
    """Rows of each client, where a column says whose they are: no split is drawn.

    Clients stand in the order in which their values first appear.

    Raises
    ------
    DataError
        If a row lacks the column or has a list or mapping there, or it has not ``clients`` values.
    """
    parts: dict[Hashable, list[PromptRow]] = {}
    for index, row in enumerate(rows):
        value = _value(row, column, index, "data.client_column")
        parts.setdefault(value, []).append(row)
    if len(parts) != clients:
        raise DataError(
            f"column {column!r} (data.client_column) has {len(parts)} values for {clients} clients",
            cure=f"set simulation.clients = {len(parts)}, or split by data.partition_by",
        )
    return list(parts.values())


def hold_out(
    rows: Sequence[PromptRow], count: int, seed: int, unit: str = ""
) -> tuple[list[PromptRow], list[PromptRow]]:
    """Take evaluation rows out of the pool, before it is split.

    Units are drawn at random until they have ``count`` rows, so that few are lost with those held.

    Parameters
    ----------
    rows:
        The pool.
    count:
        Rows to hold.
    seed:
        Public.
    unit:
        ``data.unit``: the column that makes units; empty takes the text.

    Returns
    -------
    kept, held:
        ``held`` has ``count`` rows. ``kept`` has the others in their order, without those whose
        unit or prompt is also held: no client has an evaluation prompt, under whatever further
        columns, nor another row of a person who has one.

    Raises
    ------
    DataError
        If nothing would be held, or nothing kept.
    """
    if not 0 < count < len(rows):
        raise DataError(
            f"cannot hold {count} of {len(rows)} rows out for evaluation",
            cure=f"set evaluation.prompts to 1-{max(1, len(rows) - 1)}, or give more rows",
        )
    units = _in_order_of_appearance(units_of(rows, unit))
    drawn = [units[u] for u in np.random.default_rng(seed).permutation(len(units))]
    chosen = sorted([i for one in drawn for i in one.rows][:count])
    lost = _sharing(rows, chosen, unit)
    kept = [row for index, row in enumerate(rows) if index not in lost]
    if not kept:
        raise DataError(
            f"all {len(rows)} rows repeat the {count} held-out prompts, or are of their units",
            cure="give rows with other prompts"
            + (f" and other values of {unit!r}" if unit else "")
            + ", or hold fewer out",
        )
    return kept, [rows[i] for i in chosen]


def _sharing(rows: Sequence[PromptRow], chosen: Sequence[int], unit: str) -> set[int]:
    """Rows that share a unit or a prompt with the chosen ones."""
    wanted, found = set(chosen), set()
    for units in (units_of(rows, unit), units_of(rows)):
        found |= {i for one in units if wanted & set(one.rows) for i in one.rows}
    return found


def _in_order_of_appearance(units: Sequence[Unit]) -> list[Unit]:
    """Where all rows differ, these are the rows in their order."""
    return sorted(units, key=lambda unit: min(unit.rows))


def _check_concentration(concentration: float) -> None:
    # Beyond these bounds nothing changes but that floating point runs out.
    if not 1e-6 <= concentration <= 1e6:
        raise SettingsError(
            f"data.heterogeneity = {concentration} is no Dirichlet concentration",
            cure="set it between 1e-6 and 1e6; 0.1 is very unequal, 100 almost equal",
        )


def _groups(rows: Sequence[PromptRow], units: Sequence[Unit], by: str) -> list[Indices]:
    """Unit indices of each value of ``by``, values in order of appearance."""
    if not by:
        return [np.arange(len(units))]
    values = [_value(row, by, index) for index, row in enumerate(rows)]
    groups: dict[Hashable, list[int]] = {}
    for index, unit in enumerate(units):
        groups.setdefault(values[unit.rows[0]], []).append(index)
    return [np.array(indices) for indices in groups.values()]


def _value(row: PromptRow, by: str, index: int, setting: str = "data.partition_by") -> Hashable:
    if by not in row.columns:
        raise DataError(
            f"row {index + 1} of those to split has no column {by!r}, which {setting} names",
            cure=f"choose one of {sorted(row.columns)}, or leave it empty to split evenly",
        )
    value = row.columns[by]
    if not isinstance(value, str | int | float | bool | None):
        raise DataError(
            f"row {index + 1} of those to split has a {type(value).__name__} in column {by!r}, "
            f"which {setting} names",
            cure="choose a column of texts or numbers",
        )
    return value


def _allot(stock: Counts, sizes: Counts, concentration: float, rng: np.random.Generator) -> Counts:
    """Count each client's units of each group, shape (clients, groups).

    Rows sum to ``sizes`` (clients,), columns to ``stock`` (groups,).
    """
    alpha = len(stock) * concentration * stock / stock.sum()
    left = stock.copy()
    counts = np.zeros((len(sizes), len(stock)), dtype=np.int64)
    for own, size, weights in zip(counts, sizes, rng.dirichlet(alpha, len(sizes)), strict=True):
        while missing := size - own.sum():
            wanted = np.where(left > 0, weights, 0.0)
            # A client that wants only what has run out takes the rest as it comes.
            share = wanted if wanted.sum() > 0 else left.astype(np.float64)
            taken = np.minimum(rng.multinomial(missing, share / share.sum()), left)
            np.add(own, taken, out=own)
            left -= taken
    return counts
