from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import RewardFunction, RewardMixture
from fedgrpo.settings import RewardSettings

SECRET = "patient Zyx has"
PROMPTS = [SECRET] * 3
COMPLETIONS = [SECRET + " one", SECRET + " two", SECRET + " three"]


def _one(function: RewardFunction, **columns: Any) -> Any:
    return RewardMixture([("mine", function, 1.0)])(PROMPTS, COMPLETIONS, columns)


def _returning(value: Any) -> RewardFunction:
    return lambda prompts, completions: value


REWARDS = st.one_of(st.none(), st.floats(-1e6, 1e6))


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.tuples(st.lists(REWARDS, min_size=n, max_size=n), st.floats(-10, 10)),
            min_size=1,
            max_size=4,
        )
    )
)
def test_the_total_is_the_weighted_sum_of_what_applies(
    parts: list[tuple[list[float | None], float]],
) -> None:
    count = len(parts[0][0])
    mixture = RewardMixture([(f"f{i}", _returning(r), w) for i, (r, w) in enumerate(parts)])
    rows = list(zip(*(rewards for rewards, _ in parts), strict=True))
    if any(all(value is None for value in row) for row in rows):
        with pytest.raises(RewardError, match="no reward applies"):
            mixture(["p"] * count, ["c"] * count, {})
        return
    result = mixture(["p"] * count, ["c"] * count, {})
    expected = [
        sum(w * v for v, (_, w) in zip(row, parts, strict=True) if v is not None) for row in rows
    ]
    assert result.total.dtype == np.float64
    np.testing.assert_allclose(result.total, expected, rtol=1e-12, atol=1e-9)
    for i, (rewards, _) in enumerate(parts):
        want = [math.nan if value is None else value for value in rewards]
        np.testing.assert_array_equal(result.per_function[f"f{i}"], want)


def test_settings_name_functions_and_weights() -> None:
    settings = RewardSettings(functions=("exact_match", "numeric_match"), weights=(1.0, 0.5))
    result = RewardMixture.from_settings(settings)(
        ["p", "p"], ["7", "is 7"], {"answer": ["7", "7"]}
    )
    assert result.total.tolist() == [1.5, 0.5]
    assert list(result.per_function) == ["exact_match", "numeric_match"]


def test_weights_are_one_unless_given() -> None:
    mixture = RewardMixture.from_settings(RewardSettings())
    assert mixture(["p"], ["7"], {"answer": ["7"]}).total.tolist() == [1.0]


def test_chat_prompts_and_completions_reach_the_function_as_they_are() -> None:
    def judge(prompts: Any, completions: Any) -> list[float]:
        return [float(p[0]["content"] == c[0]["content"]) for p, c in zip(prompts, completions)]  # noqa: B905

    chat = [[{"role": "user", "content": "hi"}]]
    answer = [[{"role": "assistant", "content": "hi"}]]
    assert RewardMixture([("f", judge, 1.0)])(chat, answer, {}).total.tolist() == [1.0]


def test_a_function_gets_only_what_its_signature_has() -> None:
    seen: list[set[str]] = []

    def some(completions: Any, answer: Any, trainer_state: Any = None) -> list[float]:
        seen.append({"completions", "answer"})
        assert trainer_state is None
        return [0.0] * 3

    def everything(**columns: Any) -> list[float]:
        seen.append(set(columns))
        return [0.0] * 3

    class Judge:
        def __call__(self, prompts: Any, **rest: Any) -> list[float]:
            seen.append({"prompts", *rest})
            return [0.0] * 3

    columns = {"answer": [1, 2, 3], "level": ["a"] * 3}
    functions = [some, everything, Judge(), functools.partial(some, answer=[0])]
    mixture = RewardMixture([(str(i), f, 1.0) for i, f in enumerate(functions)])
    mixture(PROMPTS, COMPLETIONS, columns)
    whole = {"prompts", "completions", "answer", "level"}
    assert seen == [{"completions", "answer"}, whole, whole, {"completions", "answer"}]


def test_a_function_cannot_disturb_the_next_by_changing_its_lists() -> None:
    def greedy(prompts: Any, completions: Any, answer: Any) -> list[float]:
        for values in (prompts, completions, answer):
            values.clear()
        return [0.0] * 3

    def careful(prompts: Any, completions: Any, answer: Any) -> list[float]:
        assert (prompts, completions, answer) == (PROMPTS, COMPLETIONS, [1, 2, 3])
        return [1.0] * 3

    mixture = RewardMixture([("greedy", greedy, 1.0), ("careful", careful, 1.0)])
    assert mixture(PROMPTS, COMPLETIONS, {"answer": [1, 2, 3]}).total.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "returned",
    [
        (1, 0, 1),
        [True, False, True],
        np.array([1.0, 0.0, 1.0], dtype=np.float32),
        torch.tensor([1.0, 0.0, 1.0]),
        [torch.tensor(1), np.int64(0), 1],
        (x for x in (1, 0, 1)),
    ],
    ids=["tuple", "bools", "numpy", "torch", "mixed", "generator"],
)
def test_any_list_of_numbers_is_accepted(returned: Any) -> None:
    assert _one(_returning(returned)).total.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (None, "returned None instead of a list"),
        (1.0, "returned float instead of a list"),
        (SECRET, "returned str instead of a list"),
        ({SECRET: 1.0, "b": 1.0, "c": 1.0}, "returned dict instead of a list"),
        ([], "returned 0 values for 3 completions"),
        ([1.0, 2.0], "returned 2 values for 3 completions"),
        ([1.0] * 4, "returned 4 values for 3 completions"),
        ([0.0, math.nan, 0.0], "returned nan for completion 2 of 3"),
        ([0.0, 0.0, math.inf], "returned inf for completion 3 of 3"),
        ([-math.inf, 0.0, 0.0], "returned -inf for completion 1 of 3"),
        ([10**400, 0, 0], "returned inf for completion 1 of 3"),
        ([SECRET, 0.0, 0.0], "returned str for completion 1 of 3"),
        (["1.0", 0.0, 0.0], "returned str for completion 1 of 3"),
        ([0.0, [SECRET], 0.0], "returned list for completion 2 of 3"),
        ([1j, 0, 0], "returned complex for completion 1 of 3"),
        (torch.zeros(3, 2), "returned Tensor for completion 1 of 3"),
        ([None, 0.0, None], "no reward applies to completion 1 of 3"),
    ],
)
def test_a_wrong_result_is_refused_with_a_cure_and_without_text(
    returned: Any, problem: str
) -> None:
    with pytest.raises(RewardError, match=problem) as caught:
        _one(_returning(returned))
    assert caught.value.cure
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_name_with_a_percent_sign_is_reported_as_it_is() -> None:
    mixture = RewardMixture([("a%20b/r.py:f", _returning([math.nan]), 1.0)])
    with pytest.raises(RewardError, match=r"a%20b/r\.py:f"):
        mixture(["p"], ["c"], {})


def test_a_total_that_overflows_is_refused() -> None:
    mixture = RewardMixture([("f", _returning([1e308]), 10.0)])
    with pytest.raises(RewardError, match="overflow"):
        mixture(["p"], ["c"], {})


def _raises(prompts: Any, completions: Any) -> list[float]:
    raise KeyError(prompts[0])


def _exits(completions: Any) -> list[float]:
    raise SystemExit(completions[0])


def _fails_midway(completions: Any) -> Any:
    yield 1.0
    raise ZeroDivisionError(completions[0])


@pytest.mark.parametrize(
    ("function", "name"),
    [(_raises, "KeyError"), (_exits, "SystemExit"), (_fails_midway, "ZeroDivisionError")],
)
def test_what_a_function_raises_is_named_by_class_and_chained(
    function: RewardFunction, name: str
) -> None:
    with pytest.raises(RewardError, match=f"'mine' raised {name}") as caught:
        _one(function)
    assert SECRET not in str(caught.value)
    assert type(caught.value.__cause__).__name__ == name


def test_a_missing_column_is_named() -> None:
    with pytest.raises(RewardError, match=r"'exact_match' needs the column 'answer'"):
        RewardMixture.from_settings(RewardSettings())(PROMPTS, COMPLETIONS, {})


@pytest.mark.parametrize(
    ("prompts", "columns", "problem"),
    [
        (PROMPTS[:2], {}, "prompts has 2 values for 3 completions"),
        (PROMPTS, {"answer": [1]}, "answer has 1 values for 3 completions"),
    ],
)
def test_arguments_of_other_lengths_are_refused(
    prompts: list[Any], columns: dict[str, list[int]], problem: str
) -> None:
    mixture = RewardMixture([("f", _returning([0.0] * 3), 1.0)])
    with pytest.raises(RewardError, match=problem):
        mixture(prompts, COMPLETIONS, columns)


def _positional(completions: Any, /) -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ([], "no reward function"),
        ([("f", _raises, 1.0), ("f", _exits, 1.0)], "'f' is named twice"),
        ([("f", _raises, math.nan)], "weight nan"),
        ([("f", _positional, 1.0)], "cannot be passed by keyword"),
        ([("f", dict.fromkeys, 1.0)], "signature|keyword"),
    ],
)
def test_an_impossible_mixture_is_refused_at_once(functions: Any, problem: str) -> None:
    with pytest.raises(RewardError, match=problem):
        RewardMixture(functions)


def test_functions_of_one_name_are_told_apart() -> None:
    def scaled(factor: float) -> RewardFunction:
        def reward(completions: Any) -> list[float]:
            return [factor] * len(completions)

        return reward

    several = [scaled(1.0), scaled(2.0), lambda completions: [3.0], lambda completions: [4.0]]
    found = RewardMixture.of(several)(["p"], ["c"], {})
    values = {name: reward.tolist() for name, reward in found.per_function.items()}
    names = ["reward", "reward_2", "reward_3", "reward_4"]
    assert values == {name: [float(i)] for i, name in enumerate(names, start=1)}


def test_a_function_cannot_disturb_the_next_however_deep_it_reaches() -> None:
    def careless(prompts: Any, completions: Any, cases: Any) -> list[float]:
        for completion, case in zip(completions, cases, strict=True):
            completion[0]["content"] = "changed"
            case["tests"].append(1)
        return [float(len(case["tests"])) for case in cases]

    def honest(completions: Any, cases: Any) -> list[float]:
        return [len(c[0]["content"]) + 10.0 * len(x["tests"]) for c, x in zip(completions, cases)]  # noqa: B905

    chats = [[{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "bb"}]]
    row: dict[str, Any] = {"tests": []}
    found = RewardMixture.of([careless, honest])(["p", "p"], chats, {"cases": [row, row]})
    assert found.per_function["careless"].tolist() == [1.0, 1.0]
    assert found.per_function["honest"].tolist() == [1.0, 2.0]
    assert row == {"tests": []}


@pytest.mark.parametrize("fault", [None, "raise", math.nan, "text", math.inf])
def test_a_group_that_cannot_be_judged_counts_nothing_and_costs_no_other(fault: Any) -> None:
    def judge(prompts: Any, completions: Any) -> Any:
        if fault == "raise" and "bad" in prompts:
            raise ValueError(SECRET)
        return [fault if p == "bad" else 1.0 + i for i, p in enumerate(prompts)]

    prompts = ["a", "a", "bad", "bad", "b", "b"]
    found = RewardMixture.of(judge).judge(prompts, ["c"] * 6, {}, 2)
    assert list(found.failures) == [1]
    assert found.counted().tolist() == [True, True, False, False, True, True]
    assert found.total[2:4].tolist() == [0.0, 0.0]
    assert (found.total[[0, 1, 4, 5]] >= 1.0).all()
    assert SECRET not in str(found.failures[1])
