import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo import soft_overlong
from tests.models import tiny_trainer


def test_punishment_is_that_of_the_paper() -> None:
    """20480 tokens at most, the last 4096 of them punished."""
    lengths = [1, 16384, 17408, 18432, 20480, 30000]
    expected = [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]
    assert soft_overlong(lengths, 20480, 4096).tolist() == expected


@given(st.lists(st.integers(0, 200), min_size=2), st.integers(1, 100), st.floats(0.01, 1))
def test_longer_is_never_punished_less(lengths: list[int], limit: int, share: float) -> None:
    punished = soft_overlong(sorted(lengths), limit, share * limit)
    assert (np.diff(punished) <= 0).all()
    assert punished.min() >= -1
    assert punished.max() <= 0


@pytest.mark.parametrize("buffer", [0.0, -1.0, 11.0])
def test_buffer_outside_the_limit_is_refused(buffer: float) -> None:
    with pytest.raises(SettingsError, match="limit of 10"):
        soft_overlong([3], 10, buffer)


def test_punished_completions_teach_and_reported_rewards_stay_as_they_were() -> None:
    """All rewards agree, so what is left to learn is to stop in time."""
    plain, punished = (
        tiny_trainer(
            reward=lambda completions: [1.0] * len(completions),
            overlong_share=share,
            max_completion_length=4,
            advantage="dr_grpo",
        )
        for share in (0.0, 1.0)
    )
    assert not plain.step(range(32)).applied
    experience = punished.collect(range(32))
    assert (experience.rewards.total == 1.0).all()
    groups = experience.advantages.reshape(32, 4)
    lengths = experience.rollout.lengths().double()
    expected = -(lengths / 4).clamp(max=1).reshape(32, 4)
    assert np.allclose(groups, expected - expected.mean(1, keepdim=True), atol=1e-6)
    kept = experience.useful(with_silent=False, with_truncated=True)
    assert not experience.rollout.ended[kept].all()
    assert punished.updater.totals(experience).tokens == int(experience.rollout.mask.sum())
    assert punished.step(range(32)).applied
