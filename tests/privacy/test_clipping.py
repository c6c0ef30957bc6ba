"""Clipping bounds every vector, whatever is in it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import clip

_ANY = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(width=64))
_FINITE = hnp.arrays(
    np.float64, st.integers(1, 30), elements=st.floats(allow_nan=False, allow_infinity=False)
)
_NORMS = st.floats(1e-6, 1e6)


@pytest.mark.slow
@settings(deadline=None)
@given(vector=_ANY, norm=_NORMS)
def test_result_is_finite_and_never_longer_than_the_clipping_norm(
    vector: np.ndarray, norm: float
) -> None:
    result = clip(vector, norm)
    assert np.isfinite(result.vector).all()
    assert np.linalg.norm(result.vector / norm) <= 1 + 1e-12


@pytest.mark.slow
@settings(deadline=None)
@given(vector=_FINITE, norm=_NORMS)
def test_direction_is_kept_and_short_vectors_are_untouched(vector: np.ndarray, norm: float) -> None:
    result = clip(vector, norm)
    if not result.clipped:
        np.testing.assert_array_equal(result.vector, vector)
        assert result.norm <= norm
    else:
        assert result.norm > norm
        assert math.isclose(float(np.linalg.norm(result.vector / norm)), 1.0, rel_tol=1e-9)
        largest = np.abs(vector).max()
        np.testing.assert_allclose(
            result.vector / np.abs(result.vector).max(), vector / largest, rtol=1e-9, atol=1e-300
        )


@pytest.mark.slow
@settings(deadline=None)
@given(vector=_FINITE, position=st.integers(0, 29), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_non_finite_coordinate_makes_the_vector_zero(
    vector: np.ndarray, position: int, bad: float
) -> None:
    vector = vector.copy()
    vector[position % vector.size] = bad
    result = clip(vector, 1.0)
    assert not result.finite
    assert not result.vector.any()
    assert result.norm == 0


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1e308])
def test_norms_neither_overflow_nor_vanish(scale: float) -> None:
    result = clip(np.array([3.0, 4.0]) / 5 * scale, 0.5 * scale)
    assert result.clipped
    assert math.isclose(result.norm, scale, rel_tol=1e-3)
    np.testing.assert_allclose(result.vector / scale, [0.3, 0.4], rtol=1e-2)


def test_a_finite_vector_whose_norm_overflows_is_still_clipped() -> None:
    result = clip(np.full(4, 1e308), 2.0)
    assert result.finite
    assert result.clipped
    assert result.norm == math.inf
    np.testing.assert_allclose(result.vector, 1.0)


def test_zero_stays_zero_and_input_is_not_written_to() -> None:
    vector = np.zeros(3, dtype=np.float32)
    result = clip(vector, 1.0)
    assert (result.norm, result.clipped, result.finite) == (0.0, False, True)
    assert result.vector.dtype == np.float64
    assert not np.shares_memory(result.vector, vector)
    assert clip(np.empty(0), 1.0).norm == 0


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_clipping_norm_is_refused(norm: float) -> None:
    with pytest.raises(PrivacyError, match=f"clipping norm = {norm}"):
        clip(np.ones(2), norm)


def test_a_matrix_is_refused() -> None:
    with pytest.raises(PrivacyError, match=r"\(2, 2\)"):
        clip(np.ones((2, 2)), 1.0)
