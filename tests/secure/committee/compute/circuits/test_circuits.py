"""Circuits in the clear: comparisons, sums and trimming are exact, and the choice is sensible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.compute.circuits.adders import (
    Columns,
    add_in_parallel,
    add_serially,
    columns_of,
)
from fedgrpo.secure.committee.compute.circuits.comparators import (
    Comparator,
    exceeds,
    logarithmic,
    ripple,
)
from fedgrpo.secure.committee.compute.circuits.costs import (
    LARGEST_STEP_BYTES,
    choose_circuit,
    cost,
    finish,
)
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS, Adder
from fedgrpo.secure.committee.compute.engine import Cleartext
from fedgrpo.secure.committee.compute.four_party import FourParty
from fedgrpo.secure.committee.compute.planes import join_planes, slice_planes, words_for
from tests.secure.committee.rounds import SESSION, component_keys, trimmed_sum

WIDTHS = st.integers(1, 17)


def clear(values: np.ndarray, bits: int) -> np.ndarray:
    return slice_planes(values, bits)[None]


@pytest.mark.parametrize("compare", [ripple, logarithmic])
@given(bits=WIDTHS, seed=st.integers(0, 2**32))
def test_comparators_agree_with_integers(compare: Comparator, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2**bits, (2, 3, 100))
    b[:, :50] = a[:, :50]
    got = finish(compare(Cleartext(), clear(a, bits), clear(b, bits)))
    np.testing.assert_array_equal(join_planes(got[0][:, None], 100), a > b)


@given(bits=WIDTHS, seed=st.integers(0, 2**32))
def test_comparison_with_public_numbers_agrees_with_integers(bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bounds = rng.integers(0, 2**bits, 3)
    a = rng.integers(0, 2**bits, (3, 100))
    a[:, :50] = np.minimum(a[:, :50], bounds[:, None])
    got = finish(exceeds(Cleartext(), clear(a, bits), [int(bound) for bound in bounds]))
    np.testing.assert_array_equal(join_planes(got[0][:, None], 100), a > bounds[:, None])


@pytest.mark.parametrize("add", [add_serially, add_in_parallel])
@given(
    count=st.integers(1, 14), bits=st.integers(1, 12), width=st.integers(1, 30), seed=st.integers(0)
)
def test_adders_agree_with_integers(
    add: Adder, count: int, bits: int, width: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 2**bits, (count, 70))
    columns: Columns = columns_of([clear(value, bits) for value in values], width)
    total = join_planes(finish(add(Cleartext(), columns))[0], 70)
    np.testing.assert_array_equal(total, values.sum(axis=0) % 2**width)


@pytest.mark.slow
@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("count", range(5, 21))
def test_every_circuit_trims_exactly_for_every_trim(circuit: str, count: int) -> None:
    rng = np.random.default_rng(count)
    values = rng.integers(0, 2**8, (count, 2000))
    values[:, :500] >>= 6  # mostly ties
    for trim in range((count - 1) // 2 + 1):
        kept = finish(CIRCUITS[circuit].keep(Cleartext(), clear(values, 8), trim))
        total = finish(CIRCUITS[circuit].add(Cleartext(), columns_of(kept, 13)))
        np.testing.assert_array_equal(
            join_planes(total[0], 2000), trimmed_sum(values, trim), err_msg=f"trim {trim}"
        )


def test_costs_are_within_the_goals() -> None:
    assert cost("ripple", 10, 2, 16, 23).conjunctions * 1.5 / 8 < 200  # bytes a coordinate
    assert cost("pairwise", 10, 2, 16, 23).steps + 3 <= 30  # greeting, confirmation, opening


def test_circuit_fits_vector_and_latency() -> None:
    assert choose_circuit(10, 2, 1_000_000, 0.001) == "ripple"
    assert choose_circuit(10, 2, 6400, 0.02) == "pairwise"
    assert choose_circuit(20, 4, 1_000_000, 5.0) == "log"


@settings(max_examples=30)
@given(st.integers(5, 20), st.integers(1, 10**7), st.floats(1e-4, 10))
def test_no_other_circuit_is_faster_in_the_memory_that_there_is(
    count: int, dimension: int, latency: float
) -> None:
    chosen = choose_circuit(count, 1, dimension, latency)
    costs = {name: cost(name, count, 1) for name in CIRCUITS}
    best = min(c.seconds(dimension, latency) for c in costs.values())
    assert costs[chosen].seconds(dimension, latency) == best
    for each in costs.values():
        step = 8 * each.widest * -(-words_for(dimension) // each.portions(dimension))
        assert step <= LARGEST_STEP_BYTES + 8 * each.widest


def test_a_million_parameters_of_twelve_clients_are_computed_in_one_portion() -> None:
    assert choose_circuit(12, 1, 1_000_000, 1.0) == "log"
    assert cost("log", 12, 1).portions(1_000_000) == 1
    assert cost("pairwise", 12, 1).portions(1_000_000) == 2


def test_a_protocol_that_sends_is_not_run_in_the_clear() -> None:
    engine = FourParty(0, component_keys()[0].for_session(SESSION), SESSION)
    share = np.zeros((3, 1, 1), np.uint64)
    with pytest.raises(ProtocolError, match="sent a message"):
        finish(engine.conjoin(share, share))
