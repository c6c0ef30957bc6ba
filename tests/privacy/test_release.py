"""What leaves a client has sensitivity 1, bears the noise claimed for it, and reads back intact."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import (
    ReleasePlan,
    client_noise_std,
    clip,
    read_aggregate,
    release_prompts,
    release_update,
    server_noise_std,
)
from fedgrpo.privacy.grid import GridSum, grid_sum
from fedgrpo.privacy.release import zero_release
from fedgrpo.settings import METRICS, PrivacySettings

_K = len(METRICS)
_D = 5


def _plan(unit: str = "prompt", **fields: Any) -> ReleasePlan:
    plan = {
        "dimension": _D,
        "clipping_norm": 0.3,
        "expected_prompts": 1,
        "noise_std": 0.0,
        "metrics_share": 0.02,
    }
    return ReleasePlan(unit=unit, **(plan | fields))  # type: ignore[arg-type]


def _released(directions: np.ndarray, metrics: np.ndarray, plan: ReleasePlan) -> np.ndarray:
    """What units with these directions, (n, d), and metrics, (n, k), release together."""
    return release_prompts(grid_sum(directions, metrics, plan.clipping_norm), plan)


_WILD = st.floats(width=64)
_VECTORS = hnp.arrays(np.float64, _D, elements=_WILD)
_METRICS = hnp.arrays(np.float64, _K, elements=_WILD)
_UNIT_METRICS = hnp.arrays(np.float64, (7, _K), elements=st.floats(0, 1))
_SHARES = st.floats(1e-4, 0.9999)
_NORMS = st.floats(1e-3, 1e3)


@pytest.mark.slow
@settings(deadline=None)
@given(gradient=_VECTORS, metrics=_METRICS, share=_SHARES, norm=_NORMS)
def test_one_prompt_moves_the_sum_by_at_most_one(
    gradient: np.ndarray, metrics: np.ndarray, share: float, norm: float
) -> None:
    plan = _plan(metrics_share=share, clipping_norm=norm)
    released = _released(gradient[None], metrics[None], plan)
    assert np.linalg.norm(released) <= 1 + 1e-12


@pytest.mark.slow
@settings(deadline=None)
@given(metrics=_UNIT_METRICS, gradients=hnp.arrays(np.float64, (7, _D), elements=st.floats(-9, 9)))
def test_adding_a_prompt_moves_the_release_by_at_most_one_over_the_expected_number(
    metrics: np.ndarray, gradients: np.ndarray
) -> None:
    plan = _plan(expected_prompts=24)
    without = _released(gradients[:6], metrics[:6], plan)
    with_it = _released(gradients, metrics, plan)
    assert np.linalg.norm(with_it - without) <= 1 / 24


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["client", "none"])
@settings(deadline=None)
@given(delta=_VECTORS, metrics=_METRICS, share=_SHARES, norm=_NORMS)
def test_one_client_moves_the_sum_by_at_most_one(
    unit: str, delta: np.ndarray, metrics: np.ndarray, share: float, norm: float
) -> None:
    plan = _plan(unit, metrics_share=share, clipping_norm=norm)
    assert np.linalg.norm(release_update(delta, metrics, plan)) <= 1 + 1e-12


def test_the_sensitivity_bound_is_attained() -> None:
    gradient = np.array([0.3, 0, 0, 0, 0])
    released = _released(gradient[None], np.ones((1, _K)), _plan())
    # A share of 2^-20 is kept free for rounding.
    assert 1 - 2.0**-19 < float(np.linalg.norm(released)) <= 1
    released = release_update(gradient * 0.999999999999, np.zeros(_K), _plan("client"))
    assert math.isclose(float(np.linalg.norm(released)), 1.0, rel_tol=1e-9)


@pytest.mark.slow
@settings(deadline=None)
@given(metrics=_UNIT_METRICS, gradients=hnp.arrays(np.float64, (7, _D), elements=st.floats(-9, 9)))
def test_reading_inverts_a_noiseless_prompt_release(
    metrics: np.ndarray, gradients: np.ndarray
) -> None:
    plan = _plan(expected_prompts=7)
    clipped = np.array([clip(row, plan.clipping_norm).vector for row in gradients])
    aggregate = read_aggregate(_released(gradients, metrics, plan), plan)
    np.testing.assert_allclose(aggregate.delta, clipped.mean(0), atol=0.3 * 2.0**-19)
    np.testing.assert_allclose(list(aggregate.metrics.values()), metrics.mean(0), atol=1e-11)
    assert list(aggregate.metrics) == list(METRICS)
    assert aggregate.share_below is None


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["client", "none"])
@settings(deadline=None)
@given(metrics=_UNIT_METRICS, deltas=hnp.arrays(np.float64, (7, _D), elements=st.floats(-0.3, 0.3)))
def test_reading_inverts_the_mean_of_noiseless_updates(
    unit: str, metrics: np.ndarray, deltas: np.ndarray
) -> None:
    plan = _plan(unit, indicator_share=1 / 16)
    pairs = zip(deltas, metrics, strict=True)
    mean = np.mean([release_update(delta, row, plan) for delta, row in pairs], axis=0)
    aggregate = read_aggregate(mean, plan)
    clipped = [clip(delta, plan.clipping_norm) for delta in deltas]
    np.testing.assert_allclose(
        aggregate.delta, np.mean([c.vector for c in clipped], axis=0), atol=1e-12
    )
    np.testing.assert_allclose(list(aggregate.metrics.values()), metrics.mean(0), atol=1e-12)
    below = np.mean([not c.clipped for c in clipped])
    assert aggregate.share_below == pytest.approx(below, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_update_contributes_zero_and_counts_as_below(bad: float) -> None:
    plan = _plan("client", indicator_share=1 / 16)
    read = read_aggregate(release_update(np.array([1, 2, bad, 0, 0]), np.ones(_K), plan), plan)
    assert not read.delta.any()
    assert read.share_below == pytest.approx(1.0)


def test_a_sample_without_prompts_releases_noise_alone() -> None:
    nothing = GridSum.nothing(_D, _K)
    assert not release_prompts(nothing, _plan()).any()
    # One value of nine may well be rounded to zero; all nine are so once in 1e19 runs.
    assert release_prompts(nothing, _plan(noise_std=1.0)).any()


def test_unbounded_metrics_are_read_within_their_range() -> None:
    plan = _plan("client", indicator_share=1 / 16)
    read = read_aggregate(np.full(plan.size, 50.0), plan)
    assert set(read.metrics.values()) == {1.0}
    assert read.share_below is not None
    assert read.share_below > 1  # next_clipping_norm clamps it.


# The audit: what an attacker who knows everything else would estimate the noise to be.

_AUDITED = 40_000


@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_released_noise_is_what_the_accountant_was_told(unit: str) -> None:
    privacy = PrivacySettings(unit=unit, noise_multiplier=0.8)  # type: ignore[arg-type]
    plan = _plan(unit, dimension=_AUDITED, expected_prompts=24, noise_std=client_noise_std(privacy))
    if unit == "prompt":
        released = 24 * _released(np.zeros((3, _AUDITED)), np.full((3, _K), 0.5), plan)
    else:
        released = release_update(np.zeros(_AUDITED), np.full(_K, 0.5), plan)
    released = released[: _AUDITED + _K]
    # 6.5 standard errors of an estimated standard deviation: fails once in 1e10 runs.
    assert abs(released.std() / 0.8 - 1) < 6.5 / math.sqrt(2 * released.size) + 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_update_and_metrics_of_one_release_are_equally_noisy_and_fresh_each_time(unit: str) -> None:
    plan = _plan(unit, dimension=1, expected_prompts=2, noise_std=1.0)
    rows = []
    for _ in range(3000):
        if unit == "prompt":
            rows.append(2 * _released(np.zeros((2, 1)), np.full((2, _K), 0.5), plan))
        else:
            rows.append(release_update(np.zeros(1), np.full(_K, 0.5), plan))
    deviations = np.std(rows, axis=0)
    assert np.all(np.abs(deviations - 1) < 6.9 / math.sqrt(2 * 3000))
    correlations = np.corrcoef(np.transpose(rows)) - np.eye(plan.size)
    assert np.abs(correlations).max() < 6.9 / math.sqrt(3000)


@pytest.mark.slow
def test_a_distinguisher_does_no_better_than_epsilon_and_delta_allow() -> None:
    # The optimal test between "victim present" and "zeroed out" projects on the victim's vector.
    plan = _plan("client", noise_std=1.5, dimension=2)
    victim = np.array([0.3, 0.0])
    direction = release_update(victim, np.ones(_K), _plan("client", dimension=2))
    assert math.isclose(float(np.linalg.norm(direction)), 1.0, rel_tol=1e-9)

    def scores(present: bool) -> np.ndarray:
        base = np.zeros(plan.size) if present else -direction
        return np.array(
            [(release_update(victim, np.ones(_K), plan) + base) @ direction for _ in range(4000)]
        )

    hits, alarms = (scores(True) > 0.5).mean(), (scores(False) > 0.5).mean()
    # Phi(1 / 3) at a distance of 1 and noise 1.5; 6.5 standard errors of a rate of 4,000 coins.
    assert abs(hits - 0.6306) < 6.5 * 0.5 / math.sqrt(4000)
    assert abs(alarms - 0.3694) < 6.5 * 0.5 / math.sqrt(4000)


def test_encoding_bound_leaves_room_for_contribution_and_noise() -> None:
    assert _plan("client", noise_std=2.0).bound == 26.0
    assert _plan(expected_prompts=24, noise_std=2.0).bound == 3.0
    assert _plan("none").bound == 2.0


@pytest.mark.parametrize("unit", ["prompt", "client", "none"])
def test_an_indicator_is_sent_only_where_it_has_a_share(unit: str) -> None:
    assert _plan(unit).size == _D + _K
    assert _plan(unit, indicator_share=0.01).size == _D + _K + 1
    assert read_aggregate(np.zeros(_D + _K), _plan(unit)).share_below is None


@pytest.mark.slow
@settings(deadline=None)
@given(
    gradient=_VECTORS,
    metrics=_METRICS,
    metrics_share=st.floats(1e-4, 0.9),
    indicator_share=st.floats(1e-6, 1 / 16),
)
def test_one_prompt_or_client_moves_the_sum_by_at_most_one_with_its_indicator(
    gradient: np.ndarray,
    metrics: np.ndarray,
    metrics_share: float,
    indicator_share: float,
) -> None:
    shares = {"metrics_share": metrics_share, "indicator_share": indicator_share}
    plan = _plan(**shares)
    assert np.linalg.norm(_released(gradient[None], metrics[None], plan)) <= 1 + 1e-12
    update = release_update(gradient, metrics, _plan("client", **shares))
    assert np.linalg.norm(update) <= 1 + 1e-12


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=7))
def test_a_half_of_the_prompts_reads_as_a_half_however_many_were_sampled(bits: list[bool]) -> None:
    plan = _plan(expected_prompts=5, indicator_share=0.01)
    below = [*bits, *(not bit for bit in bits)]
    # Three prompts had no gradient: they do not count.
    read = read_aggregate(_told([*below, None, None, None], plan), plan)
    assert read.share_below == pytest.approx(0.5)
    read = read_aggregate(_told([*below, True], plan), plan)
    assert read.share_below == pytest.approx(0.5 + 0.5 / 5)


def _told(bits: list[bool | None], plan: ReleasePlan) -> np.ndarray:
    """What units of norms below (True) or above C release, or without a gradient (None)."""
    lengths = {True: 0.5, False: 2.0, None: 0.0}
    directions = np.zeros((len(bits), _D))
    directions[:, 0] = [lengths[bit] * plan.clipping_norm for bit in bits]
    return _released(directions, np.zeros((len(bits), _K)), plan)


def test_more_indicators_than_prompts_are_refused() -> None:
    total = replace(GridSum.nothing(_D, _K), indicator=1 << 40, units=1)
    with pytest.raises(PrivacyError, match="larger than they can make it"):
        release_prompts(total, _plan(indicator_share=0.01))


@pytest.mark.parametrize("unit", ["prompt", "client", "none"])
def test_who_has_nothing_to_say_releases_zeros_under_the_full_noise(unit: str) -> None:
    std = 0.0 if unit == "none" else 1.0
    plan = _plan(unit, dimension=4000, noise_std=std)
    released = zero_release(plan, bytes(32))
    assert released.tobytes() == zero_release(plan, bytes(32)).tobytes()
    assert released.std() == pytest.approx(std, rel=0.1)
    key = derive_key(bytes(32), "noise")
    if unit == "prompt":
        # The same bits as those of a client of whose units none was sampled.
        ours = release_prompts(GridSum.nothing(4000, _K), plan, key)
        assert released.tobytes() == ours.tobytes()


# Noise scales.


def _privacy(**fields: Any) -> PrivacySettings:
    return PrivacySettings(noise_multiplier=2.0, **fields)


def test_each_client_adds_all_of_its_noise_itself() -> None:
    assert client_noise_std(_privacy()) == 2.0
    assert client_noise_std(_privacy(noise="server")) == 0
    assert client_noise_std(_privacy(unit="none")) == 0


def test_server_noise_scales_with_what_one_unit_moves_the_result_by() -> None:
    assert server_noise_std(_privacy(noise="server"), 0.25, 20) == pytest.approx(2 * 0.25 / 20)
    assert server_noise_std(_privacy(noise="server", unit="client"), 0.25, 20) == 0.5
    rounded = server_noise_std(_privacy(noise="server"), 0.25, 20, rounding=0.01)
    assert rounded == pytest.approx(2 * 0.25 * 0.06)
    assert server_noise_std(_privacy(), 0.25, 20) == 0
    assert server_noise_std(_privacy(noise="server", unit="none"), 0.25, 20) == 0


@pytest.mark.slow
@settings(deadline=None)
@given(
    vectors=hnp.arrays(np.float64, (9, _D), elements=st.floats(-1e3, 1e3)),
    gradients=hnp.arrays(np.float64, (7, _D), elements=st.floats(-9, 9)),
    metrics=_UNIT_METRICS,
)
def test_one_prompt_moves_a_trimmed_mean_by_no_more_than_server_noise_assumes(
    vectors: np.ndarray, gradients: np.ndarray, metrics: np.ndarray
) -> None:
    plan = _plan(expected_prompts=4)
    others = np.pad(vectors, ((0, 0), (0, _K)))

    def result(prompts: int) -> np.ndarray:
        own = _released(gradients[:prompts], metrics[:prompts], plan)
        buckets = np.concatenate([others[1:], own[None]]).reshape(3, 3, -1).mean(1)
        return np.sort(buckets, axis=0)[1]  # Three buckets of three, trim 1.

    noise = server_noise_std(_privacy(noise="server"), 1 / 3, 4)
    assert np.linalg.norm(result(7) - result(6)) <= noise / 2.0 + 1e-9


# Refusals.


def test_a_sum_that_was_not_clipped_is_refused() -> None:
    total = GridSum(np.full(_D, 1 << 40), np.zeros(_K, np.int64), 0, 2)
    with pytest.raises(PrivacyError, match="larger than they can make it"):
        release_prompts(total, _plan())


def test_wrong_shapes_units_and_non_finite_aggregates_are_refused() -> None:
    with pytest.raises(PrivacyError, match="unit 'client'"):
        release_prompts(GridSum.nothing(_D, _K), _plan("client"))
    with pytest.raises(PrivacyError, match="unit 'prompt'"):
        release_update(np.zeros(_D), np.zeros(_K), _plan())
    with pytest.raises(PrivacyError, match=r"metrics has shape \(3,\)"):
        release_update(np.zeros(_D), np.zeros(3), _plan("client"))
    with pytest.raises(PrivacyError, match=r"delta has shape \(2,\)"):
        release_update(np.zeros(2), np.zeros(_K), _plan("client"))
    with pytest.raises(PrivacyError, match="metrics has shape"):
        release_prompts(GridSum.nothing(_D, 3), _plan())
    with pytest.raises(PrivacyError, match="aggregate has shape"):
        read_aggregate(np.zeros(3), _plan())
    with pytest.raises(PrivacyError, match="not finite"):
        read_aggregate(np.full(_D + _K, np.inf), _plan())


@pytest.mark.parametrize(
    "fields",
    [
        {"dimension": 0},
        {"clipping_norm": 0.0},
        {"clipping_norm": math.nan},
        {"expected_prompts": 0},
        {"noise_std": -1.0},
        {"noise_std": math.inf},
        {"metrics_share": 0.0},
        {"metrics_share": 1.0},
        {"unit": "record"},
        {"unit": "none", "noise_std": 1.0},
    ],
)
def test_an_impossible_plan_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError, match="cannot be carried out"):
        _plan(**({"unit": "prompt"} | fields))


@pytest.mark.parametrize("sensitivity", [0.0, -1.0, math.nan, math.inf])
def test_server_noise_without_a_sensitivity_is_refused(sensitivity: float) -> None:
    with pytest.raises(PrivacyError, match="no noise fits"):
        server_noise_std(_privacy(noise="server"), sensitivity, 24)
