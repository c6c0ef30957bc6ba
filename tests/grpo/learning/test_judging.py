"""Rows that cannot be encoded or judged count nothing, are named once, and end nothing."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import numpy as np
import pytest

from fedgrpo.ground.errors import DataError, RewardError
from fedgrpo.grpo import GRPOTrainer, TrainingWarning
from fedgrpo.grpo.learning.advantages import ADVANTAGES
from fedgrpo.grpo.learning.judging import MOST_IN_A_ROW
from fedgrpo.settings import GRPOSettings
from tests.models import graded, tiny_base

SMALL = GRPOSettings(prompts_per_step=4, group_size=4, max_completion_length=6)
ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(5) for b in range(8)]


def told(work: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrainingWarning)
        work()
    return [str(w.message) for w in caught if issubclass(w.category, TrainingWarning)]


def trainer(reward: Any, rows: Any = ROWS, settings: GRPOSettings = SMALL) -> GRPOTrainer:
    return GRPOTrainer(tiny_base(), reward, rows, settings=settings)


def test_a_row_that_is_too_long_is_left_out_and_named() -> None:
    rows = [dict(row) for row in ROWS]
    rows[6]["prompt"] = "1+" * 300
    made: list[GRPOTrainer] = []
    (sentence,) = told(lambda: made.append(trainer(graded, rows)))
    assert "row 7 of the prompts: it has 600 tokens" in sentence
    assert "counts nothing" in sentence
    assert len(made[0].collector.rows) == 39


@pytest.mark.slow
def test_too_many_rows_that_cannot_be_used_stop_before_training() -> None:
    rows = [*ROWS, *[{"prompt": "1+" * 300}] * 3]
    with pytest.raises(DataError, match=r"3 of 43 rows(.|\n)*data\.max_failing = 0\.05"):
        trainer(graded, rows)


@pytest.mark.parametrize("fault", ["raise", None])
def test_a_row_that_cannot_be_judged_is_named_once_and_moves_nothing(fault: Any) -> None:
    def reward(prompts: Any, completions: Any) -> Any:
        if fault == "raise" and "0+2=" in prompts:
            raise KeyError(prompts)
        return [None if p == "0+2=" else g for p, g in zip(prompts, graded(completions))]  # noqa: B905

    made = trainer(reward)
    step: list[Any] = []
    chosen = [1, 2, 3, 4]
    sentences = told(lambda: step.append(made.collector.collect(chosen)))
    (sentence,) = [each for each in sentences if "counts nothing" in each]
    assert sentence.startswith("Row 3 of the prompts counts nothing: ")
    assert "Cure: " in sentence
    advantages = step[0].advantages.numpy().reshape(4, 4)
    assert not advantages[1].any()
    assert np.abs(advantages[[0, 2, 3]]).max() > 0
    assert not [x for x in told(lambda: made.collector.collect(chosen)) if "counts nothing" in x]


def test_what_cannot_be_judged_is_nothing_to_advantages_over_the_batch() -> None:
    def reward(prompts: Any, completions: Any) -> Any:
        return [None if p == "0+2=" else g + 5 for p, g in zip(prompts, graded(completions))]  # noqa: B905

    name = next(name for name, advantage in ADVANTAGES.items() if advantage.batch_wide)
    whole = SMALL.model_copy(update={"advantage": name})
    made = trainer(reward, settings=whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        found = made.collector.collect([1, 2, 3, 4])
    advantages = found.advantages.numpy().reshape(4, -1)
    assert not advantages[1].any()
    assert abs(advantages[[0, 2, 3]].mean()) < 1e-3


def test_a_reward_that_fails_at_every_row_ends_the_run() -> None:
    def reward(prompts: Any, completions: Any) -> Any:
        if prompts[0] != "0+0=":
            raise KeyError("x")
        return [1.0] * len(completions)

    made = trainer(reward)
    with pytest.raises(RewardError, match="raised KeyError"):
        made.collector.collect([1, 2])
    made = trainer(reward)
    made.collector.collect([0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        made.collector.collect(range(1, MOST_IN_A_ROW))
        with pytest.raises(RewardError, match="raised KeyError"):
            made.collector.collect([20])


def test_steps_that_nobody_asks_for_are_warned_of() -> None:
    made = trainer(graded)

    def forget() -> None:
        made.train(2)
        gc.collect()

    (sentence,) = told(forget)
    assert "no step was taken" in sentence
    assert not [x for x in told(lambda: list(made.train(1))) if "no step was taken" in x]
    assert made.steps_done == 1


def test_rewards_that_cancel_are_named() -> None:
    def longer(completions: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    def shorter(completions: Any) -> list[float]:
        return [-float(len(text)) for text in completions]

    made = trainer([longer, shorter])
    sentences = told(lambda: list(made.train(10)))
    assert [x for x in sentences if "'longer', 'shorter' vary" in x and "cancel" in x]
    assert not [x for x in sentences if "easier" in x]


def test_rewards_learn_how_far_the_training_is_and_log_beside_it() -> None:
    seen: list[tuple[int, int]] = []

    def reward(completions: Any, trainer_state: Any, log_metric: Any) -> list[float]:
        seen.append((trainer_state.global_step, trainer_state.max_steps))
        log_metric("mine", 2.0 * len(seen))
        return graded(completions)

    steps = list(trainer(reward).train(2))
    assert seen == [(0, 2), (1, 2)]
    assert [step.figures["log/mine"] for step in steps] == [2.0, 4.0]
