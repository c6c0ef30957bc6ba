from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import CosineLength, RewardMixture, exact_match, soft_overlong
from tests.models import tiny_trainer


def _ids(*lengths: int) -> list[list[int]]:
    return [[7] * n for n in lengths]


def test_soft_overlong_falls_from_zero_to_minus_one_inside_the_buffer() -> None:
    reward = soft_overlong(max_length=10, buffer=4)
    assert reward(completion_ids=_ids(0, 6, 7, 8, 10, 99)) == [0, 0, -0.25, -0.5, -1, -1]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 80))
def test_soft_overlong_never_rewards_length(buffer: int, more: int, length: int) -> None:
    reward = soft_overlong(buffer + more, buffer)
    shorter, longer = reward(completion_ids=_ids(length, length + 1))
    assert -1 <= longer <= shorter <= 0


@pytest.mark.parametrize(("limit", "buffer"), [(10, 0), (10, 11), (0, 0)])
def test_a_buffer_that_does_not_fit_is_refused(limit: int, buffer: int) -> None:
    with pytest.raises(RewardError, match="buffer"):
        soft_overlong(limit, buffer)


def _cosine(lengths: list[int], answers: list[Any], **options: Any) -> list[float | None]:
    reward = CosineLength(exact_match, 8, **options)
    count = len(lengths)
    return reward(["p"] * count, ["4"] * count, _ids(*lengths), answer=answers)


def test_cosine_length_by_hand() -> None:
    rewards = _cosine([0, 4, 8, 9, 0, 4, 8, 4], [4, 4, 4, 4, 5, 5, 5, None])
    assert rewards[:7] == pytest.approx([1, 0.75, 0.5, -1, -1, -0.75, -0.5])
    assert rewards[7] is None
    assert _cosine([2], [4], right=(2.0, 1.0)) == pytest.approx(
        [1 + (1 + math.cos(math.pi / 4)) / 2]
    )


@given(st.integers(0, 7))
def test_cosine_length_wants_right_answers_short_and_wrong_ones_long(length: int) -> None:
    right = _cosine([length, length + 1], [4, 4])
    wrong = _cosine([length, length + 1], [5, 5])
    assert right[0] > right[1] > wrong[1] > wrong[0]  # type: ignore[operator]


def test_cosine_length_needs_a_limit() -> None:
    with pytest.raises(RewardError, match="max_length"):
        CosineLength(exact_match, 0)


def test_the_trainer_counts_tokens_with_the_end_token() -> None:
    seen: list[list[int]] = []

    def count(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        seen.extend(completion_ids)
        return [float(len(ids)) for ids in completion_ids]

    trainer = tiny_trainer()
    trainer.collector.reward = RewardMixture([("count", count, 1.0)])
    experience = trainer.collect(range(8))
    assert experience.rewards.total.tolist() == experience.rollout.lengths().tolist()
    ended = experience.rollout.ended.tolist()
    ends = trainer.adapter.base.eos_ids
    assert [ids[-1] in ends for ids in seen] == ended
