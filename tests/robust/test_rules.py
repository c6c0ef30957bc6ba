"""Guarantees of the rules over bucket means."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from fedgrpo.ground.errors import CohortError, PrivacyError, ProtocolError, SettingsError
from fedgrpo.robust import (
    Public,
    combine,
    coordinates,
    describe,
    register_rule,
    rules,
    sensitivity,
)
from fedgrpo.robust.rules import combine_blocks

Matrix = NDArray[np.float64]
BUILT_IN = ("trimmed_mean", "median", "mean")
finite = st.floats(-1e6, 1e6)


@st.composite
def cohorts(draw: st.DrawFn, largest_trim: int = 4) -> tuple[Matrix, int]:
    """Bucket means and a trim that they allow."""
    trim = draw(st.integers(0, largest_trim))
    buckets = draw(st.integers(2 * trim + 1, 2 * trim + 6))
    return draw(arrays(np.float64, (buckets, draw(st.integers(1, 5))), elements=finite)), trim


@pytest.fixture
def forgotten_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules.RULES, "_entries", dict(rules.RULES._entries))


@pytest.mark.parametrize("rule", [*rules.RULES])
@given(case=cohorts(), sizes=st.lists(st.integers(1, 3), min_size=5, max_size=5))
def test_blocks_of_any_sizes_are_combined_to_the_same_bits(rule, case, sizes) -> None:
    means, trim = case
    edges = [0, *accumulate(sizes)]
    blocks = (means[:, start:stop] for start, stop in pairwise(edges) if start < means.shape[1])
    by_blocks = combine_blocks(rule, blocks, means.shape, trim)
    assert by_blocks.tobytes() == combine(rule, means, trim).tobytes()


def test_no_block_is_taken_up_where_buckets_are_too_few() -> None:
    def blocks():
        raise AssertionError("taken up")
        yield

    with pytest.raises(CohortError, match="needs 3 buckets, there are 2"):
        combine_blocks("trimmed_mean", blocks(), (2, 9), 1)


@pytest.mark.slow
@given(cohorts())
def test_trimmed_mean_equals_an_independent_sort(case: tuple[Matrix, int]) -> None:
    means, trim = case
    kept = [sorted(column)[trim : len(means) - trim] for column in means.T.tolist()]
    expected = [sum(values) / len(values) for values in kept]
    np.testing.assert_allclose(combine("trimmed_mean", means, trim), expected, 1e-9, 1e-9)


@pytest.mark.parametrize(("buckets", "trim"), [(3, 1), (4, 1), (5, 2), (10, 2), (20, 4), (33, 16)])
def test_trimmed_mean_equals_scipy(buckets: int, trim: int) -> None:
    means = np.random.default_rng(buckets).standard_cauchy((buckets, 1000))
    # scipy takes int(share * buckets): half a bucket more keeps rounding from eating one.
    expected = stats.trim_mean(means, (trim + 0.5) / buckets, axis=0)
    np.testing.assert_allclose(combine("trimmed_mean", means, trim), expected, rtol=1e-12)


@pytest.mark.slow
@given(cohorts())
def test_median_and_mean_equal_numpy(case: tuple[Matrix, int]) -> None:
    means, trim = case
    np.testing.assert_allclose(combine("median", means, trim), np.median(means, 0), 1e-9, 1e-9)
    np.testing.assert_allclose(combine("mean", means, trim), np.mean(means, 0), 1e-9, 1e-9)


@pytest.mark.parametrize("count", range(1, 13))
def test_sorting_network_sorts_every_input_of_zeros_and_ones(count: int) -> None:
    # By the 0-1 principle it then sorts every input (Knuth, TAOCP volume 3, 5.3.4, theorem Z).
    block = ((np.arange(2**count) >> np.arange(count)[:, None]) & 1).astype(np.float64)
    for trim in range((count + 1) // 2):
        middle = np.sort(block, axis=0)[trim : count - trim]
        np.testing.assert_array_equal(np.stack(coordinates._middle_rows(block, trim)), middle)


@pytest.mark.slow
@given(cohorts(), st.sampled_from(BUILT_IN), st.randoms(use_true_random=False))
def test_order_of_buckets_does_not_matter_to_the_last_bit(
    case: tuple[Matrix, int], rule: str, random: object
) -> None:
    means, trim = case
    order = list(range(len(means)))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(combine(rule, means, trim), combine(rule, means[order], trim))


@pytest.mark.slow
@given(cohorts(), st.integers(1, 7), st.sampled_from(BUILT_IN))
def test_blocks_have_no_effect(case: tuple[Matrix, int], size: int, rule: str) -> None:
    means, trim = case
    whole = combine(rule, means, trim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_BLOCK", size)
        np.testing.assert_array_equal(combine(rule, means, trim), whole)


def test_sums_beyond_float64_do_not_spoil_the_mean() -> None:
    means = np.full((5, 4), 1.5e308)
    means[:, 0] = [1.0, 2.0, 4.0, 8.0, 16.0]
    means[:, 1] *= -1
    np.testing.assert_allclose(
        combine("trimmed_mean", means, 1), [14 / 3, -1.5e308, 1.5e308, 1.5e308], rtol=1e-15
    )


def test_more_coordinates_than_a_block_are_all_combined() -> None:
    means = np.random.default_rng(0).standard_normal((5, 2 * rules._BLOCK + 3))
    np.testing.assert_allclose(
        combine("trimmed_mean", means, 1), np.sort(means, 0)[1:4].mean(0), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("rule", BUILT_IN)
def test_input_is_not_changed(rule: str) -> None:
    means = np.random.default_rng(0).standard_normal((7, 50))
    before = means.copy()
    combine(rule, means, 2)
    np.testing.assert_array_equal(means, before)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
@given(case=cohorts(), data=st.data())
def test_up_to_trim_attackers_cannot_leave_the_honest_range(
    rule: str, case: tuple[Matrix, int], data: st.DataObject
) -> None:
    means, trim = case
    attacked = means.copy()
    wild = arrays(
        np.float64, (trim, means.shape[1]), elements=st.sampled_from([-1e300, -1.0, 0.0, 1e300])
    )
    attacked[:trim] = data.draw(wild)
    honest, result = means[trim:], combine(rule, attacked, trim)
    slack = 1e-9 * np.abs(honest).max()
    assert (result >= honest.min(0) - slack).all()
    assert (result <= honest.max(0) + slack).all()


def test_one_attacker_moves_the_mean_at_will() -> None:
    means = np.zeros((5, 3))
    means[0] = 1e12
    assert (combine("mean", means, 1) == 2e11).all()


def test_values_near_the_float_limit_do_not_overflow() -> None:
    assert np.isfinite(combine("mean", np.full((4, 2), 1.7e308), 0)).all()
    assert (combine("trimmed_mean", np.full((5, 3), -1.7e308), 2) == -1.7e308).all()


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Matrix, Matrix, int, int]:
    """Bucket means with and without one client of L2 norm at most 1, trim and bucket size."""
    means, trim = draw(cohorts(largest_trim=2))
    size = draw(st.integers(1, 5))
    client = draw(arrays(np.float64, means.shape[1], elements=st.floats(-1, 1)))
    client /= max(1.0, float(np.linalg.norm(client)))
    bucket = draw(st.integers(0, len(means) - 1))
    # Close bucket means make the order change; multiples of the client's own share make ties.
    means = np.round(means / 1e6 * 4) * draw(st.sampled_from([0.25, 1.0 / size, 0.01]))
    without = means.copy()
    without[bucket] -= client / size
    return means, without, trim, size


@pytest.mark.slow
@settings(max_examples=300)
@given(neighbours(), st.sampled_from(BUILT_IN))
def test_one_client_moves_the_result_by_at_most_the_sensitivity(
    case: tuple[Matrix, Matrix, int, int], rule: str
) -> None:
    means, without, trim, size = case
    move = combine(rule, means, trim) - combine(rule, without, trim)
    bound = sensitivity(rule, len(means), trim, size)
    assert np.linalg.norm(move) <= bound * (1 + 1e-9) + 1e-12


@pytest.mark.slow
@settings(max_examples=200)
@given(neighbours(), st.sampled_from(BUILT_IN))
def test_no_coordinate_moves_more_than_the_client_did(
    case: tuple[Matrix, Matrix, int, int], rule: str
) -> None:
    # The lemma itself, which gives the bound in L1 and every other norm.
    means, without, trim, size = case
    move = combine(rule, means, trim) - combine(rule, without, trim)
    bound = sensitivity(rule, len(means), trim, size) * size * np.abs(means - without).sum(0)
    assert (np.abs(move) <= bound * (1 + 1e-9) + 1e-12).all()


def test_scalar_sensitivity_holds_exhaustively() -> None:
    grid = np.linspace(-1, 1, 5)
    moves = grid[:, None] - grid[None, :]
    others = np.stack(np.meshgrid(*[grid] * 3)).reshape(3, -1)
    for trim, rule in ((1, "trimmed_mean"), (1, "median"), (0, "mean")):
        per_unit = sensitivity(rule, 4, trim, 1)
        results = np.stack(
            [combine(rule, np.vstack([np.full(others.shape[1], x), others]), trim) for x in grid]
        )
        shifts = results[:, None] - results[None, :]
        assert (np.abs(shifts) <= per_unit * np.abs(moves)[..., None] + 1e-12).all()


@pytest.mark.parametrize("size", [1, 3])
def test_sensitivity_is_tight_for_three_buckets(size: int) -> None:
    client = np.array([0.6, -0.8])
    means = np.stack([client / size, 2 * client, np.zeros(2)])
    without = np.stack([np.zeros(2), 2 * client, np.zeros(2)])
    move = combine("trimmed_mean", means, 1) - combine("trimmed_mean", without, 1)
    assert np.linalg.norm(move) == pytest.approx(sensitivity("trimmed_mean", 3, 1, size))


def test_sensitivity_has_the_stated_values() -> None:
    assert sensitivity("trimmed_mean", 10, 2, 3) == pytest.approx(1 / 18)
    assert sensitivity("median", 5, 1, 3) == pytest.approx(1 / 3)
    assert sensitivity("median", 6, 1, 3) == pytest.approx(1 / 6)
    assert sensitivity("mean", 4, 1, 3) == pytest.approx(1 / 12)


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
@pytest.mark.parametrize("buckets", [0, 1, 4])
def test_too_few_buckets_are_refused_with_the_numbers_that_work(rule: str, buckets: int) -> None:
    largest = max(0, (buckets - 1) // 2)
    for call in (
        lambda: combine(rule, np.zeros((buckets, 2)), 2),
        lambda: sensitivity(rule, buckets, 2, 3),
    ):
        with pytest.raises(CohortError, match="needs 5 buckets") as refused:
            call()
        assert f"robust.trim <= {largest}" in refused.value.cure


def test_mean_of_no_buckets_is_refused() -> None:
    with pytest.raises(CohortError):
        combine("mean", np.zeros((0, 2)), 0)


@pytest.mark.parametrize("rule", BUILT_IN)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_non_finite_bucket_means_are_refused_by_name(rule: str, poison: float) -> None:
    means = np.zeros((5, 3))
    means[3, 1] = poison
    with pytest.raises(ProtocolError, match=r"\[3\]"):
        combine(rule, means, 1)
    means[1, 0] = -poison  # In a sum of all, infinities may meet.
    with pytest.raises(ProtocolError, match=r"\[1, 3\]"):
        combine(rule, means, 1)


def test_wrong_shape_unknown_rule_and_bad_numbers_are_refused() -> None:
    with pytest.raises(ProtocolError, match="shape"):
        combine("mean", np.zeros(3), 0)
    with pytest.raises(SettingsError, match="krumm"):
        combine("krumm", np.zeros((3, 1)), 0)
    with pytest.raises(SettingsError, match="negative"):
        combine("trimmed_mean", np.zeros((3, 1)), -1)
    with pytest.raises(PrivacyError, match="smallest bucket"):
        sensitivity("mean", 3, 0, 0)


@pytest.mark.usefixtures("forgotten_rules")
def test_a_user_rule_is_called_checked_and_given_no_unproved_sensitivity() -> None:
    @register_rule("first")
    def first(bucket_means: Matrix, trim: int) -> Matrix:
        return bucket_means[0]

    @register_rule("crooked")
    def crooked(bucket_means: Matrix, trim: int) -> Matrix:
        return bucket_means

    means = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(combine("first", means, 1), [0.0, 1.0])
    with pytest.raises(CohortError):
        combine("first", means, 2)
    with pytest.raises(PrivacyError, match="first"):
        sensitivity("first", 3, 1, 3)
    with pytest.raises(ProtocolError, match="crooked"):
        combine("crooked", means, 1)
    with pytest.raises(SettingsError, match="twice"):
        register_rule("first")(crooked)


@pytest.mark.parametrize(
    ("rule", "buckets", "trim", "said"),
    [
        ("mean", 2, 1, "mean of 2 group means"),
        ("median", 4, 1, "median of 4 group means"),
        ("trimmed_mean", 4, 0, "trimmed mean of 4 group means"),
        (
            "trimmed_mean",
            4,
            1,
            "trimmed mean of 4 group means, each coordinate without its lowest and highest",
        ),
        (
            "nnm_trimmed_mean",
            12,
            2,
            "nnm trimmed mean of 12 group means, each mixed with its 9 nearest, then each "
            "coordinate without its 2 lowest and 2 highest",
        ),
        (
            "multi_krum(keep=3)",
            9,
            2,
            "multi krum of 9 group means, the 3 with the nearest neighbours kept",
        ),
        ("norm_checked", 12, 2, "norm checked of 12 group means, each held within a public ball"),
        ("trimmed_mean", 0, 2, "trimmed mean, never applied"),
    ],
)
def test_a_rule_says_itself_what_it_did(rule: str, buckets: int, trim: int, said: str) -> None:
    assert describe(rule, buckets, trim, 3 * buckets) == said


def test_vectors_of_single_clients_are_not_called_means_of_groups() -> None:
    assert describe("mean", 9, 0, 9) == "mean of 9 clients' updates"
    assert describe("median", 9, 0, 27) == "median of 9 group means"
    assert describe("median", 0, 0, 0) == "median, never applied"


@pytest.mark.usefixtures("forgotten_rules")
def test_a_user_rule_over_whole_vectors_is_given_what_is_public() -> None:
    @register_rule("last", whole=True, history=True, words=lambda *_: "the last one again")
    def last(bucket_means: Matrix, trim: int, public: Public) -> Matrix:
        return np.zeros(3) if public.last is None else public.last

    means = np.arange(9.0).reshape(3, 3)
    before = np.array([5.0, 6.0, 7.0])
    np.testing.assert_array_equal(combine("last", means, 1, Public(3, before)), before)
    np.testing.assert_array_equal(combine("last", means, 1), np.zeros(3))
    assert describe("last", 3, 1, 9) == "last of 3 group means, the last one again"
