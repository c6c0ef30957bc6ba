"""The clipping norm finds its quantile and cannot be led astray."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.errors import PrivacyError
from fedgrpo.privacy import next_clipping_norm

_HOLDERS = 200


def _follow(norms: np.ndarray, start: float, lie: float | None = None, liars: int = 0) -> float:
    """C after 100 rounds; the first ``liars`` holders always report ``lie``."""
    current = start
    for _ in range(100):
        below = (norms <= current).astype(float)
        if lie is not None:
            below[:liars] = lie
        current = next_clipping_norm(current, below.mean(), quantile=0.5, rate=0.2, start=start)
    return current


def _norms(spread: float = 0.3) -> np.ndarray:
    return np.random.default_rng(3).lognormal(0.4, spread, _HOLDERS)


@pytest.mark.parametrize("factor", [0.2, 0.9, 1.1, 5.0])
def test_converges_to_the_median_from_either_side(factor: float) -> None:
    median = float(np.median(_norms()))
    assert abs(_follow(_norms(), factor * median) / median - 1) < 0.1


@pytest.mark.parametrize("lie", [0.0, 1.0])
def test_a_fifth_of_lying_bits_moves_it_by_at_most_a_quarter(lie: float) -> None:
    median = float(np.median(_norms()))
    reached = _follow(_norms(), median, lie=lie, liars=_HOLDERS // 5)
    assert abs(reached / median - 1) < 0.25


def test_the_sign_is_the_papers() -> None:
    rule = {"quantile": 0.5, "rate": 0.2, "start": 1.0}
    assert math.isclose(next_clipping_norm(1.0, 0.9, **rule), math.exp(-0.2 * 0.4))
    assert next_clipping_norm(1.0, 0.1, **rule) > 1.0
    assert next_clipping_norm(1.0, 0.5, **rule) == 1.0


@settings(deadline=None)
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
