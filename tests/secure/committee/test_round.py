"""What four members open is what numpy computes in the clear, bit for bit, and nothing else."""

from __future__ import annotations

import hashlib
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.ground.crypto import derive
from fedgrpo.ground.errors import CohortError, PrivacyError, ProtocolError, SettingsError
from fedgrpo.secure.committee.compute.circuits.buckets import draw_buckets
from fedgrpo.secure.committee.compute.circuits.norms import TOLERANCE
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS
from fedgrpo.secure.committee.keys.identity import context
from fedgrpo.secure.committee.links.in_process import play
from fedgrpo.secure.committee.round import aggregate, bind
from fedgrpo.secure.committee.sharing.encoding import Encoding
from fedgrpo.secure.committee.steps import MEMBERS
from tests.secure.committee.rounds import (
    SESSION,
    Tap,
    Values,
    component_keys,
    members,
    opened,
    payload_of,
    share_out,
    trimmed_sum,
)

LEGAL = [(n, k) for n in range(5, 21) for k in range((n - 3) // 2 + 1)]


def hard_values(clients: int, dimension: int, bits: int = 16) -> Values:
    """Ties, extremes, sorted and reversed orders, outliers in a few clients, and noise."""
    rng = np.random.default_rng(clients)
    top = (1 << bits) - 1
    values = rng.integers(0, top + 1, (clients, dimension))
    kinds = np.array_split(np.arange(dimension), 7)
    values[:, kinds[0]] = rng.integers(0, top + 1, len(kinds[0]))
    values[:, kinds[1]] = rng.choice([0, top], (clients, len(kinds[1])))
    values[:, kinds[2]] = rng.choice([top // 2, top // 2 + 1], (clients, len(kinds[2])))
    values[:, kinds[3]] = np.sort(values[:, kinds[3]], axis=0)
    values[:, kinds[4]] = np.sort(values[:, kinds[4]], axis=0)[::-1]
    values[0, kinds[5]], values[-1, kinds[5]] = 0, top
    return values


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "trim"), LEGAL)
def test_trimmed_sum_equals_numpy_bit_for_bit(clients: int, trim: int) -> None:
    circuit = list(CIRCUITS)[(clients + trim) % 3]
    values = hard_values(clients, 130)
    result = opened(values, Plan(clients, 130, trim=trim, circuit=circuit))
    np.testing.assert_array_equal(result.totals, trimmed_sum(values, trim))
    assert result.kept == clients - 2 * trim


@pytest.mark.slow
@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("clients", [5, 6, 9, 10])
def test_median_equals_numpy(clients: int, circuit: str) -> None:
    values = hard_values(clients, 70)
    result = opened(values, Plan(clients, 70, rule="median", circuit=circuit))
    np.testing.assert_array_equal(result.totals / result.kept, np.median(values, axis=0))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(5, 8), st.integers(1, 100), st.integers(1, 24), st.sampled_from([*CIRCUITS]))
def test_any_dimension_and_width_is_exact(
    clients: int, dimension: int, bits: int, circuit: str
) -> None:
    values = hard_values(clients, dimension, bits)
    plan = Plan(clients, dimension, trim=1, bits=bits, circuit=circuit)
    np.testing.assert_array_equal(opened(values, plan).totals, trimmed_sum(values, 1))


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_portions_of_any_number_open_the_same_totals(circuit: str) -> None:
    values = hard_values(6, 300)
    for portions in (1, 2, 3, 9):
        result = opened(values, Plan(6, 300, trim=1, circuit=circuit, portions=portions))
        np.testing.assert_array_equal(result.totals, trimmed_sum(values, 1))


def test_all_portions_are_confirmed_before_any_is_opened() -> None:
    plan = Plan(5, 300, trim=1, portions=4)
    tap = Tap()
    opened(hard_values(5, 300), plan, tap)
    sent = [m for _, sender, receiver, m in tap.messages if (sender, receiver) == (0, 1)]
    word = hashlib.sha256(context(bind(SESSION, [plan]), "content", 0, 1)).digest()
    assert sent.index(word) == len(sent) - 2  # Only the opening, of everything, comes after it.


def test_order_of_clients_does_not_matter() -> None:
    values, plan = hard_values(7, 100), Plan(7, 100, trim=2, circuit="log")
    shuffled = np.random.default_rng(0).permuted(values, axis=0)
    np.testing.assert_array_equal(opened(values, plan).totals, opened(shuffled, plan).totals)


@pytest.mark.slow
@pytest.mark.parametrize("clients", [21, 25, 47])
def test_many_clients_are_trimmed_by_random_buckets(clients: int) -> None:
    values, plan = hard_values(clients, 100), Plan(clients, 100, trim=2, portions=2)
    coin = hashlib.sha256(
        b"".join(coin_of(component, plan) for component in range(MEMBERS))
    ).digest()
    filled = np.vstack([values, np.full((plan.groups * plan.bucket - clients, 100), 2**15)])
    sums = filled[draw_buckets(coin, plan)].sum(axis=1)
    result = opened(values, plan)
    np.testing.assert_array_equal(result.totals, trimmed_sum(sums, 2))
    assert result.kept == plan.bucket * (plan.groups - 4)


def coin_of(component: int, plan: Plan) -> bytes:
    session = bind(SESSION, [plan])
    keeper = component_keys()[(component + 1) % MEMBERS].for_session(session)
    return derive(keeper.keys[component], context(session, "coin", component))


def test_buckets_are_filled_at_random_and_hold_everybody() -> None:
    plan = Plan(47, 10, trim=2)
    first, second = draw_buckets(bytes(32), plan), draw_buckets(bytes([1] * 32), plan)
    for draw in (first, second):
        assert sorted(draw.ravel()) == list(range(plan.groups * plan.bucket))
    assert (first != second).any()


@pytest.mark.parametrize("dimension", [1, 70, 1000])
@pytest.mark.parametrize("portions", [1, 3])
def test_vectors_of_too_large_a_norm_count_as_zero(dimension: int, portions: int) -> None:
    encoding = Encoding(1.0, dimension)
    norm = encoding.sensitivity
    rng = np.random.default_rng(dimension)
    directions = rng.standard_normal((6, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    legal = np.trunc(directions[:4] * [[0.9 * norm], [norm - 1], [0.5 * norm], [0.0]])
    spike = np.zeros(dimension)
    spike[0] = -norm
    illegal = np.full(dimension, -norm) if dimension > 1 else np.zeros(1)
    dense = np.clip(directions[4] * 2 * norm, -norm, norm - 1)
    vectors = np.vstack([legal, spike, illegal, dense]).astype(np.int64)
    plan = Plan(7, dimension, rule="norm_checked_mean", norm=norm, circuit="log", portions=portions)
    totals = opened(vectors + encoding.offset, plan).totals.astype(np.int64)
    norms = np.linalg.norm(vectors, axis=1)
    assert not ((norms > norm) & (norms <= (1 + TOLERANCE) * norm)).any()
    expected = vectors[norms <= norm].sum(axis=0) + 7 * encoding.offset
    np.testing.assert_array_equal(totals, expected)


def test_no_vector_within_the_norm_is_refused_and_none_beyond_the_tolerance_passes() -> None:
    norm, dimension = 2**15, 400
    rng = np.random.default_rng(5)
    directions = rng.standard_normal((12, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for scale, passes in ((1.0, True), (1.0 + TOLERANCE + 0.01, False)):
        vectors = np.trunc(directions * scale * norm).astype(np.int64)
        plan = Plan(12, dimension, rule="norm_checked_mean", norm=norm, circuit="log")
        totals = opened(vectors + 2**15, plan).totals.astype(np.int64) - 12 * 2**15
        np.testing.assert_array_equal(totals, vectors.sum(axis=0) if passes else 0 * totals)


@pytest.mark.slow
@pytest.mark.parametrize("update", [1, 60, 64, 130])
def test_figures_are_checked_apart_from_the_update(update: int) -> None:
    norm, figures_norm, figures = 12_000, 4_000, 5
    rng = np.random.default_rng(update)
    parts = [rng.standard_normal((6, size)) for size in (update, figures)]
    directions = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    # Within both, at both rims, beyond the first, beyond the second, beyond both, and zero.
    lengths = np.array([[0.5, 0.5], [1.0, 1.0], [1.3, 0.1], [0.1, 1.3], [1.3, 1.3], [0.0, 0.0]])
    scaled = [directions[0] * lengths[:, :1] * norm, directions[1] * lengths[:, 1:] * figures_norm]
    vectors = np.trunc(np.hstack(scaled)).astype(np.int64)
    plan = Plan(
        6,
        update + figures,
        rule="norm_checked_mean",
        norm=norm,
        figures=figures,
        figures_norm=figures_norm,
        circuit="log",
    )
    totals = opened(vectors + 2**15, plan).totals.astype(np.int64) - 6 * 2**15
    np.testing.assert_array_equal(totals, vectors[:2].sum(axis=0))


def test_several_plans_share_a_round() -> None:
    plans = [Plan(6, 100, trim=1), Plan(6, 3, rule="trimmed_mean", bits=1)]
    values = [hard_values(6, 100), np.random.default_rng(0).integers(0, 2, (6, 3))]
    member = members(values, plans)
    outcomes = play({index: member(index) for index in range(MEMBERS)})
    for outcome in outcomes.values():
        assert isinstance(outcome, tuple)
        np.testing.assert_array_equal(outcome[0].totals, trimmed_sum(values[0], 1))
        np.testing.assert_array_equal(outcome[1].totals, trimmed_sum(values[1], 0))


def test_lengths_and_order_of_messages_do_not_depend_on_values() -> None:
    traces = []
    for values in (np.zeros((5, 100), np.int64), hard_values(5, 100)):
        trace: list[tuple[int, int, int]] = []

        def carrier(
            s: int, r: int, message: bytes, trace: list[tuple[int, int, int]] = trace
        ) -> bytes:
            trace.append((s, r, len(message)))
            return message

        opened(values, Plan(5, 100, trim=1, circuit="pairwise"), carrier)
        traces.append(trace)
    assert traces[0] == traces[1]


REPLAY = """
import pickle, sys
from fedgrpo.secure.committee.round import aggregate, bind
arguments, received, sent = pickle.load(sys.stdin.buffer)
member = aggregate(*arguments)
step = next(member)
try:
    for expected, messages in zip(sent, received):
        assert dict(step.outgoing) == expected
        step = member.send(messages)
except StopIteration as done:
    sys.stdout.buffer.write(done.value[0].totals.tobytes())
"""


def test_a_transcript_replays_a_member_in_another_process() -> None:
    values, plan = hard_values(5, 64), Plan(5, 64, trim=1, sigma=100.0, circuit="log")
    components = share_out(payload_of(values, plan))
    playing = [aggregate(i, component_keys()[i], SESSION, [plan], components[i]) for i in range(4)]
    steps = [next(member) for member in playing]
    received, sent, result = [], [], b""
    while not result:
        inboxes = [{p: steps[p].outgoing[i] for p in steps[i].expect} for i in range(4)]
        sent.append(dict(steps[2].outgoing))
        received.append(inboxes[2])
        try:
            steps = [member.send(inbox) for member, inbox in zip(playing, inboxes, strict=True)]
        except StopIteration as done:
            result = done.value[0].totals.tobytes()
    arguments = (2, component_keys()[2], SESSION, [plan], components[2])
    replayed = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=pickle.dumps((arguments, received, sent)),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert replayed.stdout == result


@pytest.mark.parametrize(("clients", "trim"), [(4, 1), (6, 2), (40, 9)])
def test_too_few_clients_for_the_trim_are_refused(clients: int, trim: int) -> None:
    with pytest.raises(CohortError, match=f"needs {2 * trim + 3} clients"):
        Plan(clients, 10, trim=trim)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(SettingsError, match="no rule 'krum'"):
        Plan(5, 10, rule="krum")
    with pytest.raises(SettingsError, match="'quantum' is unknown"):
        Plan(5, 10, circuit="quantum")
    with pytest.raises(SettingsError, match="out of range"):
        Plan(5, 10, rule="norm_checked_mean")
    with pytest.raises(PrivacyError, match="too coarse"):
        Plan(5, 10, sigma=1.0)


def test_shares_of_another_shape_are_refused() -> None:
    plan = Plan(5, 100, trim=1)
    components = share_out(payload_of(hard_values(5, 64), plan))
    with pytest.raises(ProtocolError, match="was given components of shapes"):
        next(aggregate(0, component_keys()[0], SESSION, [plan], components[0]))


def test_width_holds_ten_scales_of_noise_on_top_of_any_sum() -> None:
    for sigma in (10.0, 2.0**15, 2.0**19):
        plan = Plan(9, 10, trim=1, sigma=sigma)
        largest = plan.kept * 2**15 + 10 * math.ceil(sigma)
        assert largest < 2 ** (plan.output_bits - 1)
