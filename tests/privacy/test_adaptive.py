"""The clipping norm finds its quantile and cannot be led astray; its count is paid for."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import (
    ReleasePlan,
    add_noise,
    count_noise,
    epsilon_gaussian,
    indicator_share,
    next_clipping_norm,
    read_aggregate,
    release_prompts,
    release_update,
    server_noise_std,
)
from fedgrpo.privacy.grid import grid_sum
from fedgrpo.robust import combine, sensitivity
from fedgrpo.settings import METRICS, PrivacySettings

_CLIENTS = 200


def _follow(norms: np.ndarray, start: float, lie: float | None = None, liars: int = 0) -> float:
    """C after 100 rounds; the first ``liars`` clients always report ``lie``."""
    current = start
    for _ in range(100):
        below = (norms <= current).astype(float)
        if lie is not None:
            below[:liars] = lie
        current = next_clipping_norm(current, below.mean(), quantile=0.5, rate=0.2, start=start)
    return current


def _norms(spread: float = 0.3) -> np.ndarray:
    return np.random.default_rng(3).lognormal(0.4, spread, _CLIENTS)


@pytest.mark.parametrize("factor", [0.2, 0.9, 1.1, 5.0])
def test_converges_to_the_median_from_either_side(factor: float) -> None:
    median = float(np.median(_norms()))
    assert abs(_follow(_norms(), factor * median) / median - 1) < 0.1


@pytest.mark.parametrize("lie", [0.0, 1.0])
def test_a_fifth_of_lying_bits_moves_it_by_at_most_a_quarter(lie: float) -> None:
    median = float(np.median(_norms()))
    reached = _follow(_norms(), median, lie=lie, liars=_CLIENTS // 5)
    assert abs(reached / median - 1) < 0.25


_COHORT, _ROUNDS, _NOISE = 100, 100, 6.0


def _private_norm(
    norms: np.ndarray,
    start: float,
    *,
    trim: int = 0,
    prompts: int = 0,
    lie: int = 0,
    liars: int = 0,
) -> float:
    """C over the last 40 of 100 rounds: release, rule, server noise, read, follow, as in a run.

    Under so much noise C itself wanders by 3 to 5 %, its (geometric) mean over 40 rounds by 2 %.

    Without ``prompts`` the norms are the clients'; with them each client has as many prompts. The
    first ``liars`` clients send ``lie`` times 1,000 where their indicator belongs.
    """
    privacy = PrivacySettings(
        unit="prompt" if prompts else "client", noise="server", noise_multiplier=_NOISE
    )
    current = start
    reached = []
    directions = np.eye(2)[np.arange(norms.size) % 2]
    for _ in range(_ROUNDS):
        share = indicator_share(norms.size, _NOISE)
        plan = ReleasePlan(privacy.unit, 2, current, max(prompts, 1), 0.0, 0.02, share)
        if prompts:
            released = [
                _prompt_release(rows, plan)
                for rows in (norms[:, None] * directions).reshape(-1, prompts, 2)
            ]
        else:
            metrics = np.full(len(METRICS), 0.5)
            released = [
                release_update(n * d, metrics, plan) for n, d in zip(norms, directions, strict=True)
            ]
        vectors = np.array(released)
        vectors[:liars, -1] = 1000.0 * lie
        per_client = sensitivity("trimmed_mean", len(vectors), trim, 1)
        combined = combine("trimmed_mean", vectors, trim)
        noisy = add_noise(combined, server_noise_std(privacy, per_client, max(prompts, 1)))
        below = read_aggregate(noisy, plan).share_below
        assert below is not None
        current = next_clipping_norm(current, below, quantile=0.5, rate=0.2, start=start)
        reached.append(current)
    return float(np.exp(np.log(reached[-40:]).mean()))


def _prompt_release(gradients: np.ndarray, plan: ReleasePlan) -> np.ndarray:
    metrics = np.full((len(gradients), len(METRICS)), 0.5)
    return release_prompts(grid_sum(gradients, metrics, plan.clipping_norm), plan)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"trim": 20}], ids=["sum", "trimmed"])
@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_under_noise_a_hundred_clients_reach_their_median(
    factor: float, options: dict[str, Any]
) -> None:
    """With sigma_b = 12 of 100 bits."""
    norms = np.random.default_rng(5).lognormal(0.4, 0.3, _COHORT)
    reached = _private_norm(norms, factor * np.median(norms), **options)
    assert abs(reached / np.median(norms) - 1) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_under_noise_prompts_reach_their_median_too(factor: float) -> None:
    norms = np.random.default_rng(6).lognormal(0.4, 0.3, _COHORT)
    reached = _private_norm(norms, factor * np.median(norms), prompts=10)
    assert abs(reached / np.median(norms) - 1) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("lie", [-1, 1])
def test_a_fifth_that_lies_beyond_any_bit_moves_it_by_at_most_a_quarter(lie: int) -> None:
    """What the trimmed mean makes of a thousand votes of one client is one vote."""
    norms = np.random.default_rng(7).lognormal(0.4, 0.3, _COHORT)
    reached = _private_norm(norms, float(np.median(norms)), trim=20, lie=lie, liars=20)
    honest = np.median(norms[20:])
    assert abs(reached / honest - 1) < 0.25


@hypothesis_settings(deadline=None)
@given(bits=st.integers(1, 10_000), noise=st.floats(0.1, 50))
def test_count_and_update_together_cost_what_the_joint_vector_does(bits: int, noise: float) -> None:
    """Theorem 1 of the paper: z^-2 = z_delta^-2 + (2 sigma_b)^-2, and Gaussians compose so."""
    sigma, share = count_noise(bits, noise), indicator_share(bits, noise)
    assert sigma == max(bits / 20, 2 * noise)
    assert 0 < share <= 1 / 16
    update = noise / math.sqrt(1 - share)
    assert update**-2 + (2 * sigma) ** -2 == pytest.approx(noise**-2)
    assert update <= 1.0328 * noise


def test_count_and_update_compose_to_the_stated_epsilon() -> None:
    """Two mechanisms, accounted one after the other, cost what one of noise z costs."""
    bits, noise = 50, 2.68
    update = noise / math.sqrt(1 - indicator_share(bits, noise))
    both = (update**-2 + (2 * count_noise(bits, noise)) ** -2) ** -0.5
    assert epsilon_gaussian(both, 20, 1e-5) == pytest.approx(epsilon_gaussian(noise, 20, 1e-5))


@pytest.mark.slow
def test_the_count_bears_the_noise_that_is_claimed() -> None:
    """Read back from a release of 50 clients whose noise the server adds: sigma_b of 50 bits."""
    share = indicator_share(50, 1.0)
    plan = ReleasePlan("client", 1, 1.0, 1, 0.0, 0.02, share)
    counts = [
        50 * (read_aggregate(add_noise(np.zeros(plan.size), 1.0 / 50), plan).share_below or 0)
        for _ in range(4000)
    ]
    # 6.5 standard errors of a standard deviation.
    assert abs(np.std(counts) / count_noise(50, 1.0) - 1) < 6.5 / math.sqrt(8000)


def test_the_sign_is_the_papers() -> None:
    rule = {"quantile": 0.5, "rate": 0.2, "start": 1.0}
    assert math.isclose(next_clipping_norm(1.0, 0.9, **rule), math.exp(-0.2 * 0.4))
    assert next_clipping_norm(1.0, 0.1, **rule) > 1.0
    assert next_clipping_norm(1.0, 0.5, **rule) == 1.0


@hypothesis_settings(deadline=None)
@given(
    current=st.floats(0.1, 10.0),
    share=st.floats(-1e6, 1e6),
    quantile=st.floats(0.05, 0.95),
    rate=st.floats(0.01, 50),
)
def test_no_share_however_wild_moves_it_further_than_the_extreme_bits(
    current: float, share: float, quantile: float, rate: float
) -> None:
    rule = {"quantile": quantile, "rate": rate, "start": 1.0}
    following = next_clipping_norm(current, share, **rule)
    least, most = (next_clipping_norm(current, bit, **rule) for bit in (1.0, 0.0))
    assert least <= following <= most
    assert 0.1 <= following <= 10.0


@pytest.mark.parametrize("arguments", [(1.0, math.nan, 1.0), (0.0, 0.5, 1.0), (1.0, 0.5, math.inf)])
def test_impossible_arguments_are_refused(arguments: tuple[float, float, float]) -> None:
    current, share, start = arguments
    with pytest.raises(PrivacyError, match="no clipping norm follows"):
        next_clipping_norm(current, share, quantile=0.5, rate=0.2, start=start)
