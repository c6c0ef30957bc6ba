from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import repetition, repetition_penalty


def test_the_share_of_repeated_runs_is_taken_off() -> None:
    # 1 2 3 1 2 3 has runs 123 231 312 123: three of four are distinct.
    ids = [[1, 2, 3, 1, 2, 3], [1, 2, 3, 4], [5, 5, 5, 5, 5], [1, 2], []]
    assert repetition(completion_ids=ids) == pytest.approx([-1 / 4, 0, -2 / 3, 0, 0])
    assert repetition_penalty(1, 0.5)(completion_ids=[[1, 1, 2, 2]]) == pytest.approx([-0.25])


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_only_repeated_runs_cost_and_never_all_of_the_maximum(ids: list[int], n: int) -> None:
    runs = [tuple(ids[i:][:n]) for i in range(len(ids)) if len(ids[i:]) >= n]
    again = sum(run in runs[:i] for i, run in enumerate(runs))
    (reward,) = repetition_penalty(n, 2.0)(completion_ids=[ids])
    assert -2 < reward <= 0
    assert reward == pytest.approx(-2 * again / len(runs) if runs else 0.0)


@pytest.mark.parametrize(("n", "maximum"), [(0, 1.0), (3, 0.0), (3, float("nan"))])
def test_a_penalty_that_is_none_is_refused(n: int, maximum: float) -> None:
    with pytest.raises(RewardError, match="repetition_penalty"):
        repetition_penalty(n, maximum)
