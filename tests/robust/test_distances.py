"""Rules over whole vectors: against byzfl, by hand, and against the attacks they are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedgrpo.ground.errors import CohortError, PrivacyError, ProtocolError, SettingsError
from fedgrpo.robust import Public, combine, sensitivity
from fedgrpo.robust.distances import squared_distances

Matrix = NDArray[np.float64]
WHOLE = ("nnm_trimmed_mean", "multi_krum", "geometric_median", "centred_clipping")


def crowd(seed: int, count: int = 11, size: int = 30) -> Matrix:
    generator = np.random.default_rng(seed)
    return generator.normal(size=size) + 0.3 * generator.normal(size=(count, size))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("trim", [1, 2, 4])
def test_mixing_equals_byzfl(seed: int, trim: int) -> None:
    mixing = pytest.importorskip("byzfl.aggregators.preaggregators").NNM(f=trim)
    trimmed = pytest.importorskip("byzfl.aggregators.aggregators").TrMean(f=trim)
    means = crowd(seed)
    np.testing.assert_allclose(
        combine("nnm_trimmed_mean", means, trim), trimmed(mixing(means)), rtol=1e-9
    )


@pytest.mark.parametrize("seed", range(5))
def test_centred_clipping_equals_byzfl(seed: int) -> None:
    aggregators = pytest.importorskip("byzfl.aggregators.aggregators")
    means, last = crowd(seed), crowd(seed + 100)[0]
    theirs = aggregators.CenteredClipping(L=3, tau=1.5)
    theirs.m = last
    ours = combine("centred_clipping(radius=1.5, steps=3)", means, 2, Public(30, last))
    np.testing.assert_allclose(ours, theirs(means), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_geometric_median_equals_byzfl_iterated_on(seed: int) -> None:
    aggregators = pytest.importorskip("byzfl.aggregators.aggregators")
    means = crowd(seed)
    theirs = aggregators.GeometricMedian(nu=1e-9, T=3000)(means)
    np.testing.assert_allclose(combine("geometric_median", means, 2), theirs, rtol=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(1.01, 1e6))
@settings(max_examples=30, deadline=None)
def test_mixing_throws_out_whole_who_is_further_off_than_honest_ones_are_apart(
    seed: int, trim: int, far: float
) -> None:
    honest = crowd(seed, count=10)
    apart = float(np.sqrt(squared_distances(honest).max()))
    generator = np.random.default_rng(seed)
    # The honest lie within a ball of radius `apart` around the first of them.
    bad = generator.normal(size=(trim, honest.shape[1]))
    bad *= 2 * far * apart / np.linalg.norm(bad, axis=1, keepdims=True)
    np.testing.assert_allclose(
        combine("nnm_trimmed_mean", np.concatenate([honest, honest[0] + bad]), trim),
        honest.mean(axis=0),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_mixing_throws_out_changes_no_bit_of_the_result(seed: int) -> None:
    honest, generator = crowd(seed, count=10), np.random.default_rng(seed)
    one, other = (
        combine("nnm_trimmed_mean", np.concatenate([honest, 50.0 * bad]), 2)
        for bad in generator.normal(size=(2, 2, honest.shape[1]))
    )
    assert one.tobytes() == other.tobytes()


def test_mixing_by_hand() -> None:
    # Of four on a line, each is averaged with its two nearest; the outlier is drawn into the crowd.
    means = np.array([[0.0], [1.0], [3.0], [100.0]])
    mixed = [4 / 3, 4 / 3, 4 / 3, 104 / 3]
    np.testing.assert_allclose(combine("nnm_trimmed_mean", means, 1), np.mean(sorted(mixed)[1:3]))


def test_multi_krum_by_hand() -> None:
    # n = 5, f = 1: scores are squared distances to the 2 nearest.
    means = np.array([[0.0], [1.0], [2.5], [4.5], [50.0]])
    scores = [1 + 6.25, 1 + 2.25, 2.25 + 4, 4 + 12.25]
    order = np.argsort(scores)
    np.testing.assert_allclose(combine("multi_krum(keep=2)", means, 1), means[order[:2]].mean(0))
    np.testing.assert_allclose(combine("multi_krum", means, 1), means[:4].mean(0))


@given(arrays(np.float64, (5, 3), elements=st.floats(-5, 5)))
@settings(max_examples=50)
def test_the_geometric_median_is_no_further_from_all_than_any_of_them(means: Matrix) -> None:
    centre = combine("geometric_median", means, 1)

    def summed(point: Matrix) -> float:
        return float(np.linalg.norm(means - point, axis=1).sum())

    assert summed(centre) <= min(map(summed, [*means, means.mean(0)])) * (1 + 1e-6) + 1e-9


def test_centred_clipping_by_hand() -> None:
    means = np.array([[3.0, 4.0], [0.5, 0.0], [0.0, -10.0]])
    one = combine("centred_clipping(radius=1.0, steps=1)", means, 1)
    np.testing.assert_allclose(one, np.mean([[0.6, 0.8], [0.5, 0.0], [0.0, -1.0]], axis=0))
    around = combine("centred_clipping(radius=1.0, steps=1)", means, 1, Public(2, means[0]))
    assert np.linalg.norm(around - means[0]) <= 1.0


@pytest.mark.parametrize("rule", WHOLE)
@pytest.mark.parametrize("seed", range(3))
def test_far_outliers_are_withstood(rule: str, seed: int) -> None:
    means = crowd(seed, 12)
    honest = means[2:].mean(0)
    means[:2] = 1e6
    spread = np.linalg.norm(means[2:] - honest, axis=1).max()
    last = Public(30, honest) if rule == "centred_clipping" else None
    assert np.linalg.norm(combine(rule, means, 2, last) - honest) <= spread


@pytest.mark.parametrize("rule", WHOLE)
@given(st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_the_order_of_vectors_does_not_matter_to_the_last_bit(rule: str, random: object) -> None:
    means = crowd(0)
    means[3] = means[5]  # A tie.
    order = list(range(len(means)))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(combine(rule, means, 2), combine(rule, means[order], 2))


@pytest.mark.parametrize("rule", WHOLE)
def test_figures_do_not_decide_who_is_near_and_are_trimmed(rule: str) -> None:
    means = crowd(1, 7, 20)
    figures = np.random.default_rng(0).normal(size=(7, 4)) * 1e4
    both = combine(rule, np.hstack([means, figures]), 2, Public(20))
    np.testing.assert_array_equal(both[:20], combine(rule, means, 2))
    np.testing.assert_array_equal(both[20:], combine("trimmed_mean", figures, 2))


@pytest.mark.parametrize("rule", WHOLE)
def test_what_cannot_be_combined_is_refused(rule: str) -> None:
    with pytest.raises(CohortError, match="needs 5 buckets"):
        combine(rule, np.zeros((4, 2)), 2)
    with pytest.raises(ProtocolError, match=r"\[1\]"):
        combine(rule, np.array([[0.0], [np.nan], [1.0]]), 1)
    with pytest.raises(PrivacyError, match="no sensitivity is proved"):
        sensitivity(rule, 5, 1, 1)
    assert (combine(rule, np.zeros((5, 3)), 2) == 0).all()


@pytest.mark.parametrize(
    "rule", ["multi_krum(keep=6)", "centred_clipping(radius=-1.0)", "centred_clipping(steps=0)"]
)
def test_options_that_mean_nothing_are_refused(rule: str) -> None:
    with pytest.raises(SettingsError, match=r"robust\.rule = "):
        combine(rule, np.zeros((5, 3)), 1)


def test_distances_are_exact_where_vectors_are_far_from_zero() -> None:
    means = 1e8 + np.arange(4.0)[:, None] * np.ones(30_000)
    expected = 30_000 * (np.arange(4.0)[:, None] - np.arange(4.0)) ** 2
    np.testing.assert_allclose(squared_distances(means), expected, rtol=1e-12)
