"""One prompt moves the trimmed mean by at most C / (B (n - 2k)), and sampling amplifies through it.

Proofs are in docs/privacy.md. Here they are tried out on every small case.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from fedgrpo.ground.errors import CohortError
from fedgrpo.privacy import ReleasePlan, release_prompts, server_noise_std
from fedgrpo.privacy.grid import grid_sum
from fedgrpo.privacy.release import float32_step
from fedgrpo.robust import combine, sensitivity
from fedgrpo.settings import METRICS, PrivacySettings

B = 4
"""Expected prompts."""


def plan(dimension: int) -> ReleasePlan:
    return ReleasePlan("prompt", dimension, 1.0, B, 0.0, 0.02)


def release(gradients: np.ndarray, clipping_norm: float = 1.0) -> np.ndarray:
    """A client's un-noised release of some prompts' gradients, shape (n, d), metrics all at 1."""
    total = grid_sum(gradients, np.ones((len(gradients), len(METRICS))), clipping_norm)
    return release_prompts(total, plan(gradients.shape[1]))


def grouped(vectors: np.ndarray, size: int) -> np.ndarray:
    return vectors.reshape(-1, size, vectors.shape[-1]).mean(1)


def noise_per_unit(groups: int, trim: int, size: int) -> float:
    """What the code takes as the sensitivity: its noise for a noise multiplier of 1."""
    privacy = PrivacySettings(noise="server", noise_multiplier=1.0)
    return server_noise_std(privacy, sensitivity("trimmed_mean", groups, trim, size), B)


@pytest.mark.parametrize(("groups", "trim", "size"), [(3, 1, 1), (5, 1, 1), (5, 2, 1), (3, 1, 2)])
def test_every_prompt_in_every_small_case_stays_within_the_bound(
    groups: int, trim: int, size: int
) -> None:
    """All values of one coordinate on a grid that holds ties, for victim, peers and the others."""
    clients = groups * size
    grid = [-1.0, -0.25, 0.0, 0.25, 1.0] if clients < 5 else [-0.5, 0.0, 0.25]
    others = np.array(list(itertools.product(grid, repeat=clients - 1)))
    largest = 0.0
    for own in itertools.product([-1.0, 0.5, 1.0], repeat=2):
        before, after = sum(own[:1]) / B, sum(own) / B  # One prompt, then one more.
        results = []
        for value in (before, after):
            vectors = np.concatenate([np.full((1, len(others)), value), others.T])
            results.append(combine("trimmed_mean", grouped(vectors, size), trim))
        largest = max(largest, float(np.abs(results[1] - results[0]).max()))
    bound = 1 / (B * size * (groups - 2 * trim))
    assert noise_per_unit(groups, trim, size) == pytest.approx(bound)
    assert largest <= bound + 1e-12
    assert largest == pytest.approx(bound)  # Attained: no smaller noise would do.


@settings(max_examples=300, deadline=None)
@given(
    others=hnp.arrays(np.float64, (11, 3 + len(METRICS)), elements=st.floats(-100, 100)),
    gradients=hnp.arrays(np.float64, (5, 3), elements=st.floats(-9, 9)),
    shape=st.sampled_from([(12, 2, 1), (12, 5, 1), (4, 1, 3), (6, 2, 2)]),
)
def test_no_vectors_of_others_let_a_prompt_move_it_further(
    others: np.ndarray, gradients: np.ndarray, shape: tuple[int, int, int]
) -> None:
    """Others are unbounded: an honest prompt's guarantee does not rest on attackers who clip."""
    groups, trim, size = shape
    results = [
        combine("trimmed_mean", grouped(np.vstack([release(sampled), others]), size), trim)
        for sampled in (gradients, gradients[:-1])
    ]
    moved = np.linalg.norm(results[0] - results[1])
    assert moved <= noise_per_unit(groups, trim, size) * (1 + 1e-9) + 1e-12


@given(
    vector=hnp.arrays(np.float64, 6, elements=st.floats(-2.5, 2.5)),
    moved=hnp.arrays(np.float64, 6, elements=st.floats(-1, 1) | st.floats(-1e-7, 1e-7)),
    bound=st.sampled_from([2.0, 2.3, 4.0, 26.0]),
)
def test_float32_adds_no_more_to_a_distance_than_is_counted(
    vector: np.ndarray, moved: np.ndarray, bound: float
) -> None:
    """What a plain node sends, and its server takes, of two neighbouring releases."""
    near, far = (np.clip(v, -bound, bound) for v in (vector, vector + moved))
    sent = [v.astype(np.float32).astype(np.float64) for v in (near, far)]
    rounding = float32_step(bound) * math.sqrt(vector.size)
    apart, before = (float(np.linalg.norm(a - b)) for a, b in (sent, (near, far)))
    assert apart <= before + rounding


@pytest.mark.parametrize("bound", [2.0, 3.0, 4.0, 14.0])
def test_the_step_that_is_counted_is_the_least_that_holds(bound: float) -> None:
    below = np.nextafter(np.float32(bound), np.float32(0))
    assert float32_step(bound) == float(np.float32(bound) - below)


def test_noise_in_the_plain_protocol_covers_the_rounding() -> None:
    """Without it a client's say would be one in so many millions larger than what is hidden."""
    privacy = PrivacySettings(noise="server", noise_multiplier=1.0)
    size = 1_000_000
    rounding = float32_step(plan(size).bound) * math.sqrt(size)
    with_it = server_noise_std(privacy, 0.1, B, rounding=rounding)
    assert with_it == pytest.approx(0.1 * (1 / B + 2**-23 * 1000), rel=1e-12)


@given(
    rule=st.sampled_from(["trimmed_mean", "median", "mean"]),
    survivors=st.lists(st.integers(0, 4), min_size=3, max_size=9),
    trim=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_whoever_drops_out_the_noise_is_what_was_promised(
    rule: str, survivors: list[int], trim: int, seed: int
) -> None:
    """Groups of which some have lost members, or all of them: z over the most that a prompt of one
    who is left moves the result by, or nothing is released.
    """
    left = [count for count in survivors if count]
    privacy, needed = PrivacySettings(noise="server", noise_multiplier=1.3), 2 * trim + 1
    if len(left) < (1 if rule == "mean" else needed):
        with pytest.raises(CohortError):
            sensitivity(rule, len(left), trim, 1)
        return
    noise = server_noise_std(privacy, sensitivity(rule, len(left), trim, min(left)), B)
    rng = np.random.default_rng(seed)
    peers = [rng.normal(scale=rng.choice([0.1, 5.0]), size=(count, 7)) for count in left]
    gradients, victim = rng.normal(size=(3, 7 - len(METRICS))), rng.integers(len(left))
    results = []
    for sampled in (gradients, gradients[:-1]):
        peers[victim][0] = release(sampled)
        means = np.stack([group.mean(axis=0) for group in peers])
        results.append(combine(rule, means, trim))
    moved = np.linalg.norm(results[0] - results[1])
    assert noise >= privacy.noise_multiplier * moved * (1 - 1e-9)


def hockey_stick(p: np.ndarray, q: np.ndarray, epsilon: float, step: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum() * step)


@pytest.mark.parametrize("others", [[-0.3, 0.0, 0.1, 0.2], [0.0, 0.0, 0.0, 0.0], [-9, -9, 0.0, 9]])
def test_secret_sampling_amplifies_through_the_trimming(others: list[float]) -> None:
    """Both neighbours' whole output densities against the pair that the accountant composes.

    A client with four prompts, each sampled with probability q, among four others; the densities
    are mixtures over all coins, so nothing of the argument is assumed.
    """
    rate, noise, trim = 0.2, 0.7, 1
    prompts = [1.0, -1.0, 0.5, 1.0]  # The victim is the first.
    per_unit = noise_per_unit(len(others) + 1, trim, 1)
    std = noise * per_unit
    grid = np.linspace(-4, 4, 80_001) * per_unit * 3
    step = float(grid[1] - grid[0])

    def density(present: list[float]) -> np.ndarray:
        total = np.zeros_like(grid)
        for coins in itertools.product([0, 1], repeat=len(present)):
            weight = math.prod(rate if coin else 1 - rate for coin in coins)
            own = sum(c * v for c, v in zip(coins, present, strict=True)) / B
            centre = combine("trimmed_mean", np.array([[own], *[[o] for o in others]]), trim)[0]
            total += weight * norm.pdf(grid, centre, std)
        return total

    with_it, without = density(prompts), density(prompts[1:])
    shifted, plain = norm.pdf(grid, per_unit, std), norm.pdf(grid, 0, std)
    mixture = (1 - rate) * plain + rate * shifted
    for epsilon in (0.0, 0.1, 0.3, 0.6, 1.0):
        add = hockey_stick(mixture, plain, epsilon, step)
        remove = hockey_stick(plain, mixture, epsilon, step)
        assert hockey_stick(with_it, without, epsilon, step) <= add + 1e-9
        assert hockey_stick(without, with_it, epsilon, step) <= remove + 1e-9


def test_a_rule_that_replaces_what_it_trims_would_break_the_bound() -> None:
    """So the tests above can fail: winsorising counts the values at the ends k + 1 times."""

    def winsorised(values: np.ndarray) -> float:
        ordered = np.sort(values)
        ordered[0], ordered[-1] = ordered[1], ordered[-2]
        return float(ordered.sum())

    others = [-1.0, 0.5, 1.0, 1.0]
    moved = winsorised(np.array([1 / B, *others])) - winsorised(np.array([0.0, *others]))
    assert moved == pytest.approx(2 / B)
    results = [
        combine("trimmed_mean", np.array([[x], *[[o] for o in others]]), 1) for x in (0, 1 / B)
    ]
    assert 3 * (results[1] - results[0])[0] == pytest.approx(1 / B)
