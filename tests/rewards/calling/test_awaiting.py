"""Asynchronous rewards are awaited together, on one loop a thread."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import RewardMixture
from fedgrpo.rewards.calling.awaiting import awaited
from fedgrpo.rewards.calling.context import TrainerState


async def _after(seconds: float, value: object) -> object:
    await asyncio.sleep(seconds)
    if isinstance(value, BaseException):
        raise value
    return value


def test_all_are_awaited_together_in_their_order() -> None:
    started = time.monotonic()
    assert awaited([_after(0.5 - i / 10, i) for i in range(5)]) == [0, 1, 2, 3, 4]
    assert time.monotonic() - started < 1.4


def test_what_one_raises_is_its_own() -> None:
    errors = [ValueError(), SystemExit(), KeyError()]
    found = awaited([_after(0.0, each) for each in [*errors, 7]])
    assert found == [*errors, 7]


def test_one_that_takes_too_long_is_told_from_the_others() -> None:
    slow, fine = awaited([_after(60, 1), _after(0, 2)], timeout_s=0.2)
    assert isinstance(slow, TimeoutError)
    assert fine == 2


def test_a_client_that_was_made_once_finds_its_loop_again() -> None:
    loops: list[Any] = []

    async def loop() -> None:
        loops.append(asyncio.get_running_loop())

    for _ in range(2):
        awaited([loop()])
    assert loops[0] is loops[1]
    assert not loops[0].is_closed()


def test_a_notebooks_running_loop_is_no_hindrance() -> None:
    async def cell() -> object:
        return awaited([_after(0, 7)])

    assert asyncio.run(cell()) == [7]


def test_threads_and_files_wake_the_loop() -> None:
    async def elsewhere() -> object:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: 7)

    assert awaited([elsewhere()]) == [7]


class Judge:
    async def __call__(self, completions: Any, **_: Any) -> list[float | None]:
        return [None if text == "x" else float(len(text)) for text in completions]


async def bad(completions: Any) -> list[float]:
    await asyncio.sleep(0)
    raise ValueError(completions[0])


def test_mixtures_await_functions_and_objects() -> None:
    mixture = RewardMixture(
        [("judge", Judge(), 1.0), ("length", lambda completions: [1.0, 1.0], 1.0)]
    )
    found = mixture(["p", "p"], ["x", "yy"], {})
    assert found.total.tolist() == [1.0, 3.0]


def test_what_an_asynchronous_reward_raises_is_named_by_class_and_place() -> None:
    with pytest.raises(RewardError, match=r"'bad' raised ValueError in test_awaiting.py") as caught:
        RewardMixture([("bad", bad, 1.0)])(["p"], ["secret"], {})
    assert "secret" not in str(caught.value)


def told(completions: Any, log_metric: Any, log_extra: Any, trainer_state: Any) -> list[float]:
    log_metric("seen", len(completions))
    log_extra("text", completions)
    return [float(trainer_state.global_step)] * len(completions)


def test_rewards_are_told_and_tell_what_trl_passes() -> None:
    mixture = RewardMixture.of([told, lambda completions, **rest: [float(len(rest))] * 4])
    found = mixture.judge(["p", "p", "q", "q"], list("abcd"), {"x": [1] * 4}, 2, TrainerState(5, 9))
    assert found.per_function["told"].tolist() == [5.0] * 4
    assert found.per_function["reward"].tolist() == [5.0] * 4  # prompts, x, and TRL's three
    assert found.notes.means() == {"seen": 4.0}
    assert found.notes.extras == {"text": list("abcd")}


def test_a_reward_that_asks_for_them_judges_by_itself_too() -> None:
    assert RewardMixture.of(told)(["p"], ["a"], {}).total.tolist() == [0.0]
