"""Every rule against the paper's formula in loops, and what privacy and learning rest on."""

from collections.abc import Callable
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo import ADVANTAGES, Outcomes, compute_advantages, register_advantage

REWARDS = arrays(np.float64, (3, 4), elements=st.floats(-10, 10, width=16))
LOCAL = [name for name, rule in ADVANTAGES.items() if not rule.batch_wide]
COMPARING = [name for name in ADVANTAGES if name != "outcome"]
"""Those with a baseline of their own."""
WIDE = [name for name, rule in ADVANTAGES.items() if rule.batch_wide]

GROUPS = [[1.0, 0.0, 0.5, 0.0], [0.25, 0.25, 2.0, -1.0], [1.0, 1.0, 1.0, 0.0]]
LENGTHS = [[3, 1, 7, 2], [5, 5, 1, 4], [2, 9, 3, 3]]
SECOND = [[0.0, 3.0, 1.0, 1.0], [2.0, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0, 4.0]]


def whitened_over_tokens(values: list[list[float]]) -> list[list[float]]:
    """Write every completion's value once a token, and take the standard score of the lot."""
    tokens = [
        value
        for group, sizes in zip(values, LENGTHS, strict=True)
        for value, size in zip(group, sizes, strict=True)
        for _ in range(size)
    ]
    return [[(value - mean(tokens)) / stdev(tokens) for value in group] for group in values]


def less_mean(group: list[float]) -> list[float]:
    return [reward - mean(group) for reward in group]


def standard(group: list[float]) -> list[float]:
    return [difference / stdev(group) for difference in less_mean(group)]


def leave_one_out(group: list[float]) -> list[float]:
    return [r - mean(group[:i] + group[i + 1 :]) for i, r in enumerate(group)]


def ranks(group: list[float]) -> list[float]:
    best_first = sorted(group, reverse=True)
    places = [[i + 1 for i, other in enumerate(best_first) if other == r] for r in group]
    return [2 - 4 * (mean(place) - 1) / (len(group) - 1) for place in places]


def batch_spread(groups: list[list[float]]) -> list[list[float]]:
    spread = stdev(reward for group in groups for reward in group)
    return [[difference / spread for difference in less_mean(group)] for group in groups]


def two_objectives(groups: list[list[float]]) -> list[list[float]]:
    pairs = zip(map(standard, groups), map(standard, SECOND), strict=True)
    summed = [[1.0 * a + 0.5 * b for a, b in zip(*pair, strict=True)] for pair in pairs]
    flat = [value for group in summed for value in group]
    return [[(value - mean(flat)) / stdev(flat) for value in group] for group in summed]


def each(rule: Callable[[list[float]], list[float]]) -> Callable[..., list[list[float]]]:
    return lambda groups: [rule(group) for group in groups]


BY_HAND: dict[str, Callable[[list[list[float]]], list[list[float]]]] = {
    "grpo": each(standard),
    "outcome": lambda groups: groups,
    "dr_grpo": each(less_mean),
    "rloo": each(leave_one_out),
    "rank": each(ranks),
    "lite_ppo": batch_spread,
    "reinforce_pp": whitened_over_tokens,
    "reinforce_pp_baseline": lambda groups: whitened_over_tokens(list(map(less_mean, groups))),
    "gdpo": two_objectives,
}


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantage_equals_the_papers_formula(name: str) -> None:
    result = compute_advantages(
        name,
        np.ravel(GROUPS),
        4,
        lengths=np.ravel(LENGTHS),
        objectives=[np.ravel(GROUPS), np.ravel(SECOND)],
        weights=[1.0, 0.5],
    )
    assert np.allclose(result, np.ravel(BY_HAND[name](GROUPS)), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
@given(REWARDS, st.integers(0, 2))
def test_only_the_own_group_counts(name: str, rewards: np.ndarray, group: int) -> None:
    """Prompt-level privacy rests on this: another prompt's rewards change nothing here."""
    changed = rewards.copy()
    changed[group] = 3.0
    before = compute_advantages(name, rewards.ravel(), 4).reshape(3, 4)
    after = compute_advantages(name, changed.ravel(), 4).reshape(3, 4)
    others = [i for i in range(3) if i != group]
    assert np.array_equal(before[others], after[others])
    assert name == "outcome" or (after[group] == 0).all()


@pytest.mark.parametrize("name", WIDE)
def test_rules_marked_as_batch_wide_are(name: str) -> None:
    changed = [[0.5, 0.5, 0.5, 0.5], *GROUPS[1:]]
    before, after = (compute_advantages(name, np.ravel(g), 4)[4:] for g in (GROUPS, changed))
    assert not np.allclose(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARING)
@given(st.floats(-1e6, 1e6))
def test_a_batch_that_agrees_gets_exact_zeros(name: str, reward: float) -> None:
    assert (compute_advantages(name, np.full(8, reward), 4) == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMPARING if name != "reinforce_pp"])
@given(arrays(np.float64, 4, elements=st.floats(-10, 10, width=16)), st.floats(-10, 10))
def test_a_group_that_agrees_gets_exact_zeros_beside_one_that_does_not(
    name: str, other: np.ndarray, reward: float
) -> None:
    """Exact, because groups without signal are skipped; all but the rule without a group mean."""
    result = compute_advantages(name, np.concatenate([np.full(4, reward), other]), 4)
    assert (result[:4] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ADVANTAGES)
@given(REWARDS, st.permutations(range(4)))
def test_the_order_within_a_group_does_not_matter(
    name: str, rewards: np.ndarray, order: list[int]
) -> None:
    straight = compute_advantages(name, rewards.ravel(), 4).reshape(3, 4)[:, order]
    shuffled = compute_advantages(name, rewards[:, order].ravel(), 4).reshape(3, 4)
    assert np.allclose(straight, shuffled, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ADVANTAGES)
@given(REWARDS)
def test_a_better_completion_of_a_group_never_gets_less(name: str, rewards: np.ndarray) -> None:
    result = compute_advantages(name, rewards.ravel(), 4).reshape(3, 4)
    for group, values in zip(rewards, result, strict=True):
        assert (np.diff(values[np.argsort(group)]) >= -1e-9).all()


@pytest.mark.slow
@given(REWARDS)
def test_ranks_stay_within_two_and_ignore_the_scale(rewards: np.ndarray) -> None:
    result = compute_advantages("rank", rewards.ravel(), 4)
    assert np.abs(result).max() <= 2
    assert np.allclose(result.reshape(3, 4).sum(1), 0)
    assert np.array_equal(result, compute_advantages("rank", 1000 * rewards.ravel(), 4))


@pytest.mark.parametrize(
    ("name", "bound"),
    # The last divides twice, each time by the floor.
    [("grpo", 1e-3), ("lite_ppo", 1e-3), ("reinforce_pp", 1e-3), ("gdpo", 0.1)],
)
def test_advantages_near_zero_spread_do_not_explode(name: str, bound: float) -> None:
    rewards = np.array([0.95, 0.95, 0.95, 0.95 + 1e-7])
    assert np.abs(compute_advantages(name, rewards, 4)).max() < bound


def test_ranks_do_not_blow_rounding_up_to_a_full_step() -> None:
    assert (compute_advantages("rank", [0.3, 0.1 + 0.2, 0.3, 0.3], 4) == 0).all()


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("rewards", [[0.0, *[0.95] * 7], [1.0, *[0.0] * 7]])
def test_one_that_differs_from_others_that_agree_is_bounded(
    name: str, rewards: list[float]
) -> None:
    """Divided by the spread of the *others*, as some do with a leave-one-out baseline, it would be
    thousands.
    """
    largest = np.abs(compute_advantages(name, rewards, 8)).max()
    assert largest <= 7 / np.sqrt(8) + 1e-9  # the largest standard score of 8 values
    assert largest > 0.8


def test_gdpo_tells_combinations_of_one_total_apart() -> None:
    objectives = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    totals = np.sum(objectives, axis=0)
    result = compute_advantages("gdpo", totals, 4, objectives=objectives)
    assert result[0] > result[1] + 0.2
    assert totals[0] == totals[1]


def test_gdpo_passes_over_objectives_that_do_not_apply() -> None:
    """Judged for one half of a group only, the second objective moves that half alone."""
    first = [1.0, 0.0, 1.0, 0.0]
    some = [np.nan, np.nan, 1.0, 0.0]
    none = [np.nan] * 4
    alone = compute_advantages("gdpo", first, 4)
    assert np.allclose(compute_advantages("gdpo", first, 4, objectives=[first, none]), alone)
    result = compute_advantages("gdpo", first, 4, objectives=[first, some])
    assert np.isfinite(result).all()
    assert result[2] > result[0] > 0 > result[1] > result[3]


def test_equal_lengths_are_the_default() -> None:
    for name in WIDE:
        plain = compute_advantages(name, np.ravel(GROUPS), 4)
        assert np.allclose(plain, compute_advantages(name, np.ravel(GROUPS), 4, lengths=[1] * 12))


def test_a_new_rule_is_one_decorated_function() -> None:
    @register_advantage("largest_only", batch_wide=False)
    def largest_only(outcomes: Outcomes, *, bonus: float = 1.0) -> np.ndarray:
        best = outcomes.rewards == outcomes.rewards.max(axis=1, keepdims=True)
        return best * bonus

    try:
        result = compute_advantages("largest_only", [1, 2, 3, 0], 2, bonus=5.0)
        assert result.tolist() == [0, 5, 5, 0]
    finally:
        del ADVANTAGES._entries["largest_only"]


def test_unknown_rules_torn_groups_and_misfits_are_refused() -> None:
    with pytest.raises(SettingsError, match="choose from"):
        compute_advantages("gropo", np.zeros(4), 4)
    with pytest.raises(SettingsError, match="groups of 4"):
        compute_advantages("grpo", np.zeros(6), 4)
    with pytest.raises(SettingsError, match="reward 2 of 4 is not finite"):
        compute_advantages("grpo", [0.0, np.nan, 1.0, 0.0], 4)
    with pytest.raises(SettingsError, match="group of 1"):
        compute_advantages("rloo", np.zeros(6), 1)
    with pytest.raises(SettingsError, match="lengths of shape"):
        compute_advantages("reinforce_pp", np.zeros(6), 3, lengths=np.ones(5))
    with pytest.raises(SettingsError, match="weights of shape"):
        compute_advantages("gdpo", np.zeros(6), 3, weights=np.ones(2))
