"""Metrics of users' own: the right values, within their range, and a failure costs one figure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import RewardMixture, declare_metric
from fedgrpo.rewards.apart.mixture import guarded_mixture
from fedgrpo.rewards.composite import check_columns
from fedgrpo.rewards.loading import load_metric, load_metrics, span_of
from fedgrpo.rewards.sandboxed import isolated
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.rewards.sandboxed.sandbox import sandbox_available
from fedgrpo.settings import RewardSettings

FILE = Path(__file__).with_name("measured.py")
NAMES = tuple(f"{FILE}:{n}" for n in ("length(unit=2)", "share_of_a", "unruly", "Counted(most=3)"))
FIGURES = [f"metrics/{name.rpartition(':')[2]}" for name in NAMES]
REWARD = RewardSettings(functions=("exact_match",))
ANSWERS = ["aa", "abcdefghij"]

linux = pytest.mark.skipif(not sandbox_available(), reason="needs Linux's seccomp filters")


@pytest.fixture(scope="module", params=["here", "apart", pytest.param("confined", marks=linux)])
def mixture(request: pytest.FixtureRequest) -> Iterator[RewardMixture]:
    """The same metrics wherever rewards judge."""
    ways: dict[str, Any] = {
        "here": RewardMixture.from_settings,
        "apart": guarded_mixture,
        "confined": isolated_mixture,
    }
    made = ways[request.param](REWARD, NAMES)
    yield made
    getattr(made, "close", lambda: None)()


def measured(mixture: RewardMixture, prompt: str = "p") -> dict[str, list[float]]:
    found = mixture([prompt] * 2, ANSWERS, {"answer": ["aa", "x"]})
    assert found.total.tolist() == [1.0, 0.0]
    assert list(found.per_function) == ["exact_match"]
    return {name: values.tolist() for name, values in found.measured.items()}


def test_values_are_those_of_the_functions_within_their_ranges(mixture: RewardMixture) -> None:
    # Half of 2 and of 10 characters, held to 4; shares of "a"; 0.5.
    values = [[1.0, 4.0], [1.0, 0.1], [0.5, 0.5]]
    found = measured(mixture)
    assert [found[name] for name in FIGURES[:3]] == values
    assert list(found) == FIGURES
    spans = [(0.0, 4.0), (0.0, 1.0), (-1.0, 1.0), (0.0, 1.0)]
    assert mixture.spans == dict(zip(FIGURES, spans, strict=True))


@pytest.mark.parametrize(
    ("prompt", "value"),
    [("huge", 1.0), ("low", -1.0), ("nothing", None), ("nan", None), ("raise", None)],
)
def test_what_fails_or_is_out_of_range_changes_its_own_figure_only(
    mixture: RewardMixture, prompt: str, value: float | None
) -> None:
    found = measured(mixture, prompt)
    assert found[FIGURES[2]] == [value] * 2 if value else np.isnan(found[FIGURES[2]]).all()
    assert found[FIGURES[1]] == [1.0, 0.1]


def test_a_group_of_many_loses_its_own_figure_and_says_why() -> None:
    mixture = RewardMixture.from_settings(REWARD, NAMES)
    prompts = ["raise", "raise", "p", "p", "huge", "huge"]
    found = mixture.judge(prompts, ["aa"] * 6, {"answer": ["aa"] * 6}, 2)
    told = found.measured["metrics/unruly"].tolist()
    assert np.isnan(told[:2]).all()
    assert told[2:] == [0.5, 0.5, 1.0, 1.0]
    assert len(found.unmeasured) == 1
    assert found.total.tolist() == [1.0] * 6
    assert not found.failures


def test_why_a_metric_failed_quotes_nothing() -> None:
    mixture = RewardMixture.from_settings(REWARD, NAMES)
    found = mixture(["raise"] * 2, ANSWERS, {"answer": ["aa", "x"]})
    (error,) = found.unmeasured
    assert "metric 'metrics/unruly' raised ValueError in measured.py" in error.problem
    assert "Zyx" not in str(error)


@linux
def test_a_confined_metric_remembers_no_other_prompt() -> None:
    mixture = isolated_mixture(REWARD, NAMES)
    # It says 1 to the first prompt that it sees only.
    assert [measured(mixture)[FIGURES[3]] for _ in range(3)] == [[1.0, 0.0]] * 3
    mixture.close()


def test_a_metric_is_refused_where_no_process_can_be_confined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "sandbox_available", lambda: False)
    with pytest.raises(RewardError, match=r"metric '.*share_of_a' must judge in a process") as told:
        isolated_mixture(REWARD, NAMES[1:2])
    assert "stateless_rewards" in told.value.cure
    vouched = isolated_mixture(REWARD, NAMES[1:2], stateless=NAMES[1:2])
    assert measured(vouched) == {FIGURES[1]: [1.0, 0.1]}


@pytest.mark.parametrize(
    ("name", "problem", "cure"),
    [
        ("length(units=2)", "there is no option 'units'", "choose from unit"),
        ("length(unit='a')", "valid number", "correct unit"),
        ("lenght", "has no 'lenght'", "check the function's name"),
        ("Counted(least=1)", "there is no option 'least'", "choose from most"),
        ("Bound", "wants the trainer's model", "reward of weight 0"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, problem: str, cure: str) -> None:
    with pytest.raises(RewardError, match=problem) as caught:
        load_metric(f"{FILE}:{name}")
    assert "privacy.metrics" in caught.value.problem
    assert cure in caught.value.cure


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (-math.inf, 0.0), (math.nan, 1.0), (-1e308, 1e308)],
)
def test_a_range_is_two_finite_numbers_of_finite_width(low: float, high: float) -> None:
    with pytest.raises(RewardError, match="which is no range of finite width") as caught:
        declare_metric(low=low, high=high)(print)
    assert f"metric 'print' declares low = {low} and high = {high}" in caught.value.problem


def test_a_metric_is_no_reward_and_its_range_is_known_by_name() -> None:
    assert span_of(NAMES[0]) == (0.0, 4.0)
    with pytest.raises(RewardError, match=r"declared for privacy\.metrics"):
        RewardMixture.from_settings(RewardSettings(functions=(NAMES[0],)))


def test_prompts_without_a_column_that_a_metric_needs_are_refused() -> None:
    with pytest.raises(RewardError, match=r"metric 'metrics/Counted\(most=3\)' needs .*'answer'"):
        check_columns(plain().measuring(load_metrics(NAMES)), ["other"])


def plain() -> RewardMixture:
    return RewardMixture.of(lambda completions: [float(text == "aa") for text in completions])


def test_a_mixture_of_python_functions_takes_metrics_of_files() -> None:
    honest = plain()
    found = honest.measuring(load_metrics(NAMES[:1]))(["p"] * 2, ANSWERS, {}).measured
    assert {name: values.tolist() for name, values in found.items()} == {FIGURES[0]: [1.0, 4.0]}
    assert honest.metrics == {}
