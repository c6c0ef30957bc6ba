"""Noise is added once, after trimming, from keys that three members each hold."""

from __future__ import annotations

import numpy as np
import pytest

from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.keys.identity import ComponentKeys
from fedgrpo.secure.committee.keys.noise import effective_noise
from fedgrpo.secure.committee.links.in_process import run
from fedgrpo.secure.committee.round import aggregate, bind, draw_noise
from fedgrpo.secure.committee.sharing.encoding import Encoding, decode_sum, encode
from fedgrpo.secure.committee.steps import MEMBERS
from tests.secure.committee.rounds import (
    SESSION,
    Values,
    component_keys,
    opened,
    payload_of,
    share_out,
    trimmed_sum,
)


def noise(plan: Plan, session: bytes = SESSION, section: int = 0) -> Values:
    """The four parts, drawn by whoever holds their key; shape (4, d)."""
    session = bind(session, [plan])
    keepers = [component_keys()[(m + 1) % MEMBERS].for_session(session) for m in range(MEMBERS)]
    return np.stack([draw_noise(m, k, session, section, plan) for m, k in enumerate(keepers)])


@pytest.mark.parametrize("sigma", [8.0, 3000.0, 2.0**18])
def test_opened_sum_is_the_trimmed_sum_and_four_parts_of_noise(sigma: float) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (6, 200))
    plan = Plan(6, 200, trim=1, sigma=sigma, circuit="log")
    result = opened(values, plan)
    expected = trimmed_sum(values, 1).astype(np.int64) + noise(plan).sum(axis=0)
    np.testing.assert_array_equal(result.totals.astype(np.int64), expected % 2**result.bits)


def test_outsiders_see_sigma_and_one_curious_member_half_of_it() -> None:
    plan = Plan(5, 40_000, trim=1, sigma=500.0)
    parts = noise(plan)
    multipliers = effective_noise(1.0)
    assert parts.sum(axis=0).std() == pytest.approx(multipliers.outsider * plan.sigma, rel=0.02)
    for curious in range(MEMBERS):  # it subtracts all parts but its own component's
        assert parts[curious].std() == pytest.approx(multipliers.member * plan.sigma, rel=0.02)


def test_parts_sections_and_sessions_have_independent_noise() -> None:
    plan = Plan(5, 20_000, trim=1, sigma=500.0)
    draws = np.vstack([noise(plan), noise(plan, section=1), noise(plan, session=bytes(32))])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(plan.dimension)


def test_a_member_holds_three_of_the_four_keys() -> None:
    plan = Plan(5, 10, trim=1, sigma=500.0)
    for index, keys in enumerate(component_keys()):
        with pytest.raises(KeyError):
            draw_noise(index, keys.for_session(SESSION), SESSION, 0, plan)


def test_vectors_go_in_and_their_noisy_trimmed_mean_comes_out() -> None:
    rng = np.random.default_rng(1)
    encoding = Encoding(clipping_norm=1.0, dimension=300)
    vectors = rng.standard_normal((7, 300))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.stack([encode(vector, encoding) for vector in vectors])
    plan = Plan(7, 300, trim=2, sigma=0.001 * encoding.sensitivity)
    components = share_out(payload_of(values.astype(np.int64), plan))

    def keys(index: int) -> ComponentKeys:
        return component_keys()[index]

    (result,) = run(lambda i: aggregate(i, keys(i), SESSION, [plan], components[i]))
    mean = decode_sum(result.totals, result.kept, result.bits, encoding) / result.kept
    exact = np.sort(vectors, axis=0)[2:-2].mean(axis=0)
    assert np.abs(mean - exact).max() < encoding.slack + 6 * 0.001 / result.kept
