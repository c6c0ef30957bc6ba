"""Partition networks separate what they must, for every input, with few comparators."""

from __future__ import annotations

import numpy as np
import pytest

from fedgrpo.ground.errors import SettingsError
from fedgrpo.robust.networks import Network, layers, partition_network
from fedgrpo.settings.protocols.committee.groups import MOST_GROUPS

CASES = [(count, trim) for count in range(3, 21) for trim in range(1, (count + 1) // 2)]


def applied(network: Network, values: np.ndarray) -> np.ndarray:
    rows = list(values)
    for low, high in network:
        rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
    return np.stack(rows)


def separates(rows: np.ndarray, trim: int) -> bool:
    low, middle, high = rows[:trim], rows[trim : len(rows) - trim], rows[len(rows) - trim :]
    return bool(
        (low.max(axis=0) <= middle.min(axis=0)).all()
        and (middle.max(axis=0) <= high.min(axis=0)).all()
    )


@pytest.mark.parametrize(("count", "trim"), [case for case in CASES if case[0] <= 13])
def test_every_input_of_zeros_and_ones_is_partitioned(count: int, trim: int) -> None:
    # By the 0-1 principle every input then is (Knuth, TAOCP volume 3, 5.3.4, theorem Z).
    inputs = (np.arange(2**count) >> np.arange(count)[:, None] & 1).astype(np.int8)
    assert separates(applied(partition_network(count, trim), inputs), trim)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "trim"), [case for case in CASES if case[0] > 13])
def test_random_inputs_with_ties_are_partitioned(count: int, trim: int) -> None:
    inputs = np.random.default_rng(count).integers(0, 30, (count, 20_000)).astype(np.int8)
    assert separates(applied(partition_network(count, trim), inputs), trim)


@pytest.mark.parametrize(("count", "trim", "length"), [(8, 1, 10), (8, 2, 15), (10, 2, 21)])
def test_networks_are_as_short_as_pruned_optimal_ones(count: int, trim: int, length: int) -> None:
    assert len(partition_network(count, trim)) <= length


def test_one_comparator_less_would_not_do() -> None:
    network = partition_network(10, 2)
    inputs = (np.arange(2**10) >> np.arange(10)[:, None] & 1).astype(np.int8)
    for at in range(len(network)):
        assert not separates(applied(network[:at] + network[at + 1 :], inputs), 2)


def test_layers_keep_the_order_on_every_wire() -> None:
    network = partition_network(10, 3)
    inputs = np.random.default_rng(0).standard_normal((10, 100))
    grouped = layers(network)
    for layer in grouped:
        wires = [wire for comparator in layer for wire in comparator]
        assert len(set(wires)) == len(wires)
    flat = tuple(comparator for layer in grouped for comparator in layer)
    np.testing.assert_array_equal(applied(flat, inputs), applied(network, inputs))


@pytest.mark.parametrize(("count", "trim"), [(MOST_GROUPS + 1, 2), (6, 3), (5, -1)])
def test_impossible_partitions_are_refused(count: int, trim: int) -> None:
    with pytest.raises(SettingsError, match=f"{trim} values off either end of {count}"):
        partition_network(count, trim)
