import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedgrpo.errors import SettingsError
from fedgrpo.grpo import compute_advantages

REWARDS = arrays(np.float64, (3, 4), elements=st.floats(-10, 10, width=16))


@given(REWARDS)
def test_grpo_is_the_standard_score_of_the_group(rewards: np.ndarray) -> None:
    result = compute_advantages("grpo", rewards.ravel(), 4).reshape(3, 4)
    for group, values in zip(torch.from_numpy(rewards), result, strict=True):
        if group.std() > 1e-2:
            assert np.allclose(values, ((group - group.mean()) / group.std()).numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
@given(REWARDS, st.integers(0, 2))
def test_only_the_own_group_counts(name: str, rewards: np.ndarray, group: int) -> None:
    """Prompt-level privacy rests on this: another prompt's rewards change nothing here."""
    changed = rewards.copy()
    changed[group] = 3.0
    before = compute_advantages(name, rewards.ravel(), 4).reshape(3, 4)
    after = compute_advantages(name, changed.ravel(), 4).reshape(3, 4)
    others = [i for i in range(3) if i != group]
    assert np.array_equal(before[others], after[others])
    assert (after[group] == 0).all()


@given(st.floats(-1e6, 1e6), st.sampled_from(["grpo", "dr_grpo"]))
def test_a_group_that_agrees_gets_exact_zeros(reward: float, name: str) -> None:
    assert (compute_advantages(name, np.full(8, reward), 8) == 0).all()


def test_advantages_within_rounding_of_zero_spread_do_not_explode() -> None:
    rewards = np.array([0.95, 0.95, 0.95, 0.95 + 1e-7])
    assert np.abs(compute_advantages("grpo", rewards, 4)).max() < 1e-3


def test_unknown_rule_and_torn_groups_are_refused() -> None:
    with pytest.raises(SettingsError, match="choose from"):
        compute_advantages("gropo", np.zeros(4), 4)
    with pytest.raises(SettingsError, match="groups of 4"):
        compute_advantages("grpo", np.zeros(6), 4)
