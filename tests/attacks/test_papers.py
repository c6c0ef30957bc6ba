"""Attacks against the formulas of their papers, on arrays small enough to read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from fedgrpo.attacks import ATTACKS, EVERYBODY, Knowledge, apply_attack, check_attack
from fedgrpo.attacks.everybody import alie_z
from fedgrpo.federation.node.faults import attack
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Settings

Floats = NDArray[np.float64]

HONEST = np.array([[1.0, -4.0, 2.0], [3.0, -2.0, -4.0], [5.0, -3.0, -1.0]])
OWN = np.array([[1.0, 2.0, -3.0], [3.0, -4.0, -1.0]])


def known(honest: Floats | None = HONEST, own: Floats = OWN, **others: object) -> Knowledge:
    chosen = {"boost": 10.0, "round": 2, "update": own.shape[1], "clients": 5, "attackers": 2}
    return Knowledge(**{**chosen, "own": own, "honest": honest, **others})  # type: ignore[arg-type]


def sent(name: str, knowledge: Knowledge | None = None) -> Floats:
    told = knowledge or known()
    return apply_attack(name, told.own[0], told)


def test_fang_lies_beyond_the_honest_range_against_the_mean() -> None:
    # Means 3, -3, -1; the extremes against them 1, -2 and 2, each a factor of 2 further out.
    np.testing.assert_allclose(sent("fang"), [0.5, -1.0, 4.0])
    np.testing.assert_allclose(sent("fang(factor=4.0)"), [0.25, -0.5, 8.0])


@given(arrays(np.float64, (4, 3), elements=st.floats(-5, 5)), st.floats(1.0, 10.0))
def test_fang_never_lies_within_the_honest_range(honest: Floats, factor: float) -> None:
    vector = sent(f"fang(factor={factor})", known(honest))
    upward = honest.mean(axis=0) > 0
    assert (vector[upward] <= honest.min(axis=0)[upward]).all()
    assert (vector[~upward] >= honest.max(axis=0)[~upward]).all()


def test_fang_own_takes_signs_from_the_colluders() -> None:
    np.testing.assert_allclose(sent("fang_own"), 10 / np.sqrt(3) * np.array([-1.0, 1.0, 1.0]))
    np.testing.assert_allclose(sent("fang_own(sigmas=4.0)"), [2 - 4 * 1, -1 + 4 * 3, -2 + 4 * 1])


def test_a_little_is_enough_stays_within_z_standard_deviations() -> None:
    mean, deviation = HONEST.mean(axis=0), HONEST.std(axis=0)
    np.testing.assert_allclose(sent("alie(z=1.5)"), mean - 1.5 * deviation)
    np.testing.assert_allclose(sent("alie_dir"), mean - 1.5 * deviation * [1, -1, -1])
    np.testing.assert_allclose(sent("alie_dir(z=0.5)"), mean - 0.5 * deviation * [1, -1, -1])


@pytest.mark.parametrize(
    ("clients", "attackers", "share"),
    [(50, 24, 24 / 26), (51, 24, 25 / 27), (12, 5, 5 / 7), (12, 2, 0.5), (24, 2, 0.5)],
)
def test_the_papers_z(clients: int, attackers: int, share: float) -> None:
    # The paper's own example: n = 50, m = 24, s = 2, (n - m - s) / (n - m) = 24 / 26, z = 1.43.
    assert alie_z(clients, attackers) == pytest.approx(stats.norm.ppf(share), abs=1e-9)
    told = known(clients=clients, attackers=attackers)
    expected = HONEST.mean(axis=0) - stats.norm.ppf(share) * HONEST.std(axis=0)
    np.testing.assert_allclose(sent("alie", told), expected, atol=1e-9)


def test_z_is_never_below_zero() -> None:
    assert alie_z(5, 1) == 0.0 == alie_z(9, 1)


def test_inner_product_manipulation() -> None:
    np.testing.assert_allclose(sent("ipm"), -0.5 * HONEST.mean(axis=0))
    np.testing.assert_allclose(sent("ipm(epsilon=2.0)"), -2 * HONEST.mean(axis=0))
    np.testing.assert_allclose(sent("ipm_own(epsilon=3.0)"), -3 * OWN.mean(axis=0))


def test_mimic_sends_the_one_furthest_along_the_direction_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    honest = 0.1 * rng.normal(size=(6, 4))
    honest[:, 2] += [0, 1, -1, 5, 0.5, -0.5]
    np.testing.assert_array_equal(sent("mimic", known(honest, own=np.zeros((2, 4)))), honest[3])
    np.testing.assert_array_equal(sent("mimic(client=1)"), HONEST[1])


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["unit", "sign", "std"])
@pytest.mark.parametrize("summed", [False, True])
@given(arrays(np.float64, (5, 4), elements=st.floats(-3, 3)))
@settings(max_examples=30)
def test_min_max_and_min_sum_go_as_far_as_their_limit_and_no_further(
    direction: str, summed: bool, honest: Floats
) -> None:
    name = f"{'min_sum' if summed else 'min_max'}(direction={direction!r})"
    mean, measure = honest.mean(axis=0), np.sum if summed else np.max
    vector = sent(name, known(honest, own=np.zeros((2, 4))))
    between = ((honest[:, None] - honest) ** 2).sum(axis=2)
    limit = measure(between, axis=1).max()

    def reached(point: Floats) -> float:
        return float(measure(((point - honest) ** 2).sum(axis=1)))

    assert reached(vector) <= limit * (1 + 1e-6) + 1e-9
    if np.linalg.norm(vector - mean) > 1e-3:
        assert reached(mean + 1.01 * (vector - mean)) > limit


def test_the_worst_direction_ends_furthest_against_the_mean() -> None:
    mean = HONEST.mean(axis=0)
    each = [sent(f"min_max(direction={way!r})") @ mean for way in ("unit", "sign", "std")]
    assert sent("min_max") @ mean == min(each)


def test_concentrated_reverses_the_largest_coordinates_only() -> None:
    honest = np.array([[1.0, -5.0, 0.0, 3.0]])
    vector = sent("concentrated(coordinates=2)", known(honest, own=np.zeros((1, 4)), update=4))
    np.testing.assert_allclose(vector, np.array([0, 1, 0, -1]) / np.sqrt(2))
    figures = sent("concentrated", known(honest, own=np.zeros((1, 4)), update=3))
    assert figures[3] == 0.0


def test_stale_sends_the_first_release_for_ever() -> None:
    first = np.array([7.0, 8.0, 9.0])
    np.testing.assert_array_equal(sent("stale", known(first=first)), first)
    np.testing.assert_array_equal(sent("stale", known(first=None)), OWN[0])


def test_a_shared_replay_is_as_long_as_the_own_update() -> None:
    first = np.concatenate([2 * OWN[1][:2], [9.0]])
    told = known(first=first, update=2)
    half = sent("stale(share=0.5)", told)
    replay = half[:2] * 2 - OWN[0][:2]
    assert np.linalg.norm(replay) == pytest.approx(np.linalg.norm(OWN[0][:2]))
    assert replay @ first[:2] == pytest.approx(np.linalg.norm(replay) * np.linalg.norm(first[:2]))
    assert half[2] == OWN[0][2]


def test_a_way_that_lasts_is_the_same_in_every_round() -> None:
    way = np.array([1.0, -2.0, 0.5])
    mean = HONEST.mean(axis=0)
    undone = sent("min_sum(direction='undo')", known(way=way)) - mean
    assert undone @ -way == pytest.approx(np.linalg.norm(undone) * np.linalg.norm(way))
    fixed = [sent("min_sum(direction='fixed')", known(round=round)) - mean for round in (1, 7)]
    assert len(set(np.abs(np.round(fixed[0], 9)))) == 1
    np.testing.assert_array_equal(*fixed)
    for nowhere in (None, np.zeros(3)):
        there = sent("min_sum(direction='undo')", known(way=nowhere))
        np.testing.assert_array_equal(there, mean)


def test_colluders_draw_different_noise_of_the_length_of_boost() -> None:
    own = np.random.default_rng(0).normal(size=(2, 4000))
    told = known(honest=None, own=own)
    drawn = [apply_attack("gaussian", vector, told) for vector in own]
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 10, rtol=0.1)
    assert abs(drawn[0] @ drawn[1]) < 10
    later = apply_attack("gaussian", own[0], known(honest=None, own=own, round=3))
    assert (later != drawn[0]).all()


POISONS = {"backdoor", "flipped_reward", "length_reward"}
"""What changes the data and sends whatever comes of it."""
LIMITABLE = sorted(set(ATTACKS) - {"nan", "infinity", "nan_message"} - POISONS)


@pytest.mark.parametrize("name", LIMITABLE)
def test_a_limited_attack_passes_a_norm_check(name: str) -> None:
    rng = np.random.default_rng(1)
    told = known(rng.normal(size=(6, 20)), own=rng.normal(size=(2, 20)), update=17)
    limited = sent(f"{name}(limited=True)", told)
    longest = np.linalg.norm(told.honest[:, :17], axis=1).max()
    assert np.linalg.norm(limited[:17]) <= longest * (1 + 1e-12)
    figures = np.linalg.norm(told.honest[:, 17:], axis=1).max()
    assert np.linalg.norm(limited[17:]) <= figures * (1 + 1e-12)
    checked = known(told.honest, told.own, update=17, radius=0.25)
    full, held = sent(name, checked)[:17], sent(f"{name}(limited=True)", checked)[:17]
    assert np.linalg.norm(held) <= 0.25 * (1 + 1e-12)
    # The same direction: only the length is changed.
    np.testing.assert_allclose(held * np.linalg.norm(full), full * np.linalg.norm(held), atol=1e-9)


@pytest.mark.parametrize("name", sorted(EVERYBODY))
def test_what_needs_others_vectors_is_refused_where_there_are_none(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*needs what others send") as refused:
        sent(f"{name}(limited=True)", known(honest=None))
    assert "one process" in refused.value.cure
    with pytest.raises(SettingsError, match="needs what others send"):
        check_attack(f"{name}(limited=True)")


def test_what_needs_nobody_is_not_refused() -> None:
    for name in set(ATTACKS) - EVERYBODY:
        check_attack(name)
    assert {"alie", "alie_dir", "concentrated", "fang", "ipm", "mimic"} <= EVERYBODY


@pytest.mark.parametrize("option", ["alie(z='big')", "ipm(sigmas=1.0)", "fang(limited=3)"])
def test_options_that_do_not_fit_are_refused(option: str) -> None:
    with pytest.raises(SettingsError, match=r"simulation\.attack"):
        sent(option)


@pytest.mark.parametrize(
    ("name", "value"), [("nan", 2.0), ("infinity", -2.0), ("nan_message", np.nan)]
)
def test_what_is_no_number_leaves_as_the_bound_or_in_the_message(name: str, value: float) -> None:
    settings = Settings.from_run_config({"simulation.attack": name})
    out = attack(settings, OWN[0], 2.0, known())
    np.testing.assert_array_equal(out, np.full(3, value))
