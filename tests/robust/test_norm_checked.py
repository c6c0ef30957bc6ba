"""The norm-checked mean: its Lipschitz bound, in the units of releases, and what it bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedgrpo.robust import Public, combine, sensitivity
from fedgrpo.robust.norm_checked import first_radius, inside, next_radius

Floats = NDArray[np.float64]
UPDATE, FIGURES = 4, 2
RADII = st.floats(0.01, 2.0)


def floats(shape: tuple[int, ...], bound: float = 2.0) -> st.SearchStrategy[Floats]:
    return arrays(np.float64, shape, elements=st.floats(-bound, bound))


@st.composite
def neighbours(draw: st.DrawFn, count: int) -> tuple[Floats, Floats, Floats]:
    """What others sent, which is anything, and one client's release with and without a unit."""
    others = draw(floats((count - 1, UPDATE + FIGURES), 1e6))
    release = draw(floats((UPDATE + FIGURES,)))
    unit = draw(floats((UPDATE + FIGURES,)))
    unit /= max(1.0, float(np.linalg.norm(unit)))
    return others, release, release - unit


@pytest.mark.slow
@settings(max_examples=300)
@given(neighbours(5), RADII, RADII)
def test_one_clients_unit_moves_the_mean_of_singles_by_at_most_the_sensitivity(
    case: tuple[Floats, Floats, Floats], radius: float, figures: float
) -> None:
    others, *releases = case
    public = Public(UPDATE, radius=radius, figures_radius=figures)
    held = [inside(release, UPDATE, radius, figures) for release in releases]
    results = [combine("norm_checked", np.vstack([one, others]), 1, public) for one in held]
    moved = np.linalg.norm(releases[0] - releases[1]) * sensitivity("norm_checked", 5, 1, 1)
    assert np.linalg.norm(results[0] - results[1]) <= moved * (1 + 1e-9) + 1e-12


@pytest.mark.slow
@settings(max_examples=300)
@given(neighbours(4), RADII, RADII, st.integers(1, 4))
def test_one_clients_unit_moves_the_mean_of_buckets_by_at_most_the_sensitivity(
    case: tuple[Floats, Floats, Floats], radius: float, figures: float, size: int
) -> None:
    others, release, without = case
    public = Public(UPDATE, radius=radius, figures_radius=figures, single=False)
    # The peers in the client's bucket are as free as anybody: they are in ``release`` too.
    buckets = [np.vstack([one / size, others]) for one in (release, without)]
    results = [combine("norm_checked", one, 1, public) for one in buckets]
    moved = np.linalg.norm(release - without) * sensitivity("norm_checked", 4, 1, size)
    assert np.linalg.norm(results[0] - results[1]) <= moved * (1 + 1e-9) + 1e-12


def test_zeroing_buckets_would_move_the_mean_further() -> None:
    # Why buckets are projected: beside an attacker at the rim, a small step blanks the bucket.
    public = Public(2, radius=1.0, single=True)
    rim, beyond = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.001, 0.0], [0.0, 0.0]])
    results = [combine("norm_checked", means, 0, public) for means in (rim, beyond)]
    allowed = 0.001 * sensitivity("norm_checked", 2, 0, 1)
    assert np.linalg.norm(results[0] - results[1]) > 100 * allowed


def test_a_single_vector_outside_either_ball_counts_as_zero() -> None:
    public = Public(2, radius=1.0, figures_radius=0.5)
    means = np.array([[0.6, 0.8, 0.5], [0.6, 0.9, 0.0], [0.1, 0.0, 0.51], [0.0, -0.5, 0.0]])
    expected = np.array([0.6, 0.3, 0.5]) / 4
    np.testing.assert_allclose(combine("norm_checked", means, 1, public), expected)


@given(floats((UPDATE + FIGURES,), 1e9), RADII, RADII)
def test_what_a_client_projects_passes_the_check(
    release: Floats, radius: float, figures: float
) -> None:
    held = inside(release, UPDATE, radius, figures)
    public = Public(UPDATE, radius=radius, figures_radius=figures)
    np.testing.assert_allclose(combine("norm_checked", held[None], 0, public), held)
    again = inside(held, UPDATE, radius, figures)
    np.testing.assert_allclose(again, held, rtol=1e-12)


@given(floats((3, UPDATE), 1e9), floats((9, UPDATE), 0.4))
def test_attackers_move_the_mean_by_their_share_of_the_radius(
    attackers: Floats, honest: Floats
) -> None:
    public = Public(UPDATE, radius=1.0)
    with_them = combine("norm_checked", np.vstack([attackers, honest]), 0, public)
    without = combine("norm_checked", np.vstack([np.zeros((3, UPDATE)), honest]), 0, public)
    assert np.linalg.norm(with_them - without) <= 3 / 12 + 1e-9


@given(floats((6, UPDATE), 1.0), st.booleans())
def test_within_the_ball_it_is_the_mean(means: Floats, single: bool) -> None:
    public = Public(UPDATE, radius=2.1, single=single)
    np.testing.assert_allclose(combine("norm_checked", means, 0, public), means.mean(0), atol=1e-12)


def test_the_radius_follows_the_signal_down_and_grows_by_no_more_than_sampling_explains() -> None:
    assert first_radius(24) == pytest.approx(math.sqrt(1 / 16 + 1 / 24))
    radius = first_radius(24)
    for signal in (0.16, 0.1, 0.05, 0.0):
        smaller = next_radius(math.hypot(signal, 0.2), 0.2, 24, radius)
        assert smaller == pytest.approx(math.sqrt(signal**2 + 1 / 24))
        assert smaller < radius
        radius = smaller
    assert next_radius(5.0, 0.0, 24, radius) == pytest.approx(math.sqrt(radius**2 + 1 / 24))
    assert next_radius(5.0, 0.0, 1, 1.0) == 1.0


def test_attackers_cannot_make_the_radius_grow_for_ever() -> None:
    # Two of twelve at the rim, along the honest mean of length 0.16.
    radius = first_radius(24)
    for _ in range(100):
        radius = next_radius((10 * 0.16 + 2 * radius) / 12, 0.0, 24, radius)
    assert radius < 0.28


@given(neighbours(6))
@settings(max_examples=20)
def test_radius_is_no_function_of_what_is_combined(case: tuple[Floats, Floats, Floats]) -> None:
    # The same public ball whatever is sent: a vector inside stays what it is.
    others, release, _ = case
    public = Public(UPDATE, radius=0.5, figures_radius=0.5)
    held = inside(release, UPDATE, 0.5, 0.5)
    mine = combine("norm_checked", np.vstack([held, others]), 0, public)
    rest = combine("norm_checked", np.vstack([np.zeros_like(held), others]), 0, public)
    np.testing.assert_allclose(mine - rest, held / 6, atol=1e-12)
