"""Held-out figures depend on the adapter alone, and measuring leaves training as it was."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo import HeldOut
from fedgrpo.grpo.held_out import pass_at
from fedgrpo.grpo.trainer import GRPOTrainer
from tests.models import graded, rows, stirred, tiny_trainer


def held_out(trainer: GRPOTrainer) -> HeldOut:
    return HeldOut(
        trainer.adapter, trainer.collector.reward, rows(12, seed=9), trainer.settings, seed=5
    )


def test_the_same_adapter_gives_the_same_figures() -> None:
    trainer = tiny_trainer(reward=graded)
    measure = held_out(trainer)
    first, again = measure.sampled(), measure.sampled()
    assert first.reward == again.reward
    assert np.array_equal(first.rollout.tokens, again.rollout.tokens)
    assert measure.greedy().reward == measure.greedy().reward
    assert first.by_function() == {"graded": pytest.approx(first.reward)}


def test_drift_is_measured_from_where_the_adapter_stood() -> None:
    trainer = tiny_trainer(reward=graded)
    measure = held_out(trainer)
    assert measure.drift(measure.sampled()) == pytest.approx(0.0, abs=1e-6)
    stirred(trainer.adapter)
    assert measure.drift(measure.sampled()) > 1e-3


def test_measuring_between_steps_changes_no_step() -> None:
    alone, watched = tiny_trainer(reward=graded), tiny_trainer(reward=graded)
    measure = held_out(watched)
    for _ in range(3):
        expected = alone.step()
        measure.sampled()
        measure.greedy()
        measure.pass_at((1, 8))
        assert watched.step().loss == expected.loss
    assert np.array_equal(alone.adapter.vector(), watched.adapter.vector())


def test_accuracy_is_told_apart_by_a_column_of_few_values() -> None:
    measure = held_out(tiny_trainer(reward=graded))
    sampled, greedy = measure.sampled(), measure.greedy()
    found = measure.by("task", {"sampled": sampled, "greedy": greedy})
    tasks = [row.columns["task"] for row in measure.collector.rows]
    assert set(found) == set(tasks)
    assert len(found) > 1
    weighted = sum(found[task]["sampled"] for task in tasks) / len(tasks)
    assert weighted == pytest.approx(sampled.reward)
    for task in found:
        own = [i for i, other in enumerate(tasks) if other == task]
        assert found[task]["greedy"] == pytest.approx(greedy.rewards.total[own].mean())
    assert measure.by("no such column", {"sampled": sampled}) == {}


def test_a_column_of_many_values_is_not_told_apart() -> None:
    trainer = tiny_trainer(reward=graded)
    unique = [PromptRow(f"{i}+1=", {"answer": "0", "id": i}) for i in range(25)]
    measure = HeldOut(trainer.adapter, trainer.collector.reward, unique, trainer.settings, seed=5)
    assert measure.by("id", {"sampled": measure.sampled()}) == {}


@given(
    passed=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    k=st.integers(1, 12),
)
def test_pass_at_k_is_the_share_of_draws_of_k_that_hold_one_that_passes(
    passed: list[int], k: int
) -> None:
    expected = [1 - comb(12 - solved, k) / comb(12, k) for solved in passed]
    assert pass_at(np.array(passed), 12, k) == pytest.approx(np.mean(expected), abs=1e-12)


def test_pass_at_k_counts_what_is_worth_the_passing_reward() -> None:
    def passes(text: str) -> bool:
        return sum(map(ord, text)) % 3 == 0

    def thirds(completions: list[str]) -> list[float]:
        return [0.5 if passes(text) else 0.0 for text in completions]

    trainer = tiny_trainer(reward=thirds, passing_reward=0.5)
    measure = held_out(trainer)
    found = measure.pass_at((8, 1, 3))
    assert list(found) == ["1", "3", "8"]
    assert 0 < found["1"] < found["3"] < found["8"] <= 1
    assert measure.pass_at((8, 1, 3)) == found
    # Of one group's worth of completions, the same that are counted by hand.
    rollout = measure.policy.rollout
    measure.policy.generator.manual_seed(5)
    drawn = rollout(measure.collector.encoded, measure.policy.sampling_plan(group_size=4))
    solved = np.array(list(map(passes, measure.policy.decode(drawn)))).reshape(-1, 4)
    assert measure.pass_at((1, 4)) == {
        "1": pytest.approx(solved.mean()),
        "4": pytest.approx(solved.any(axis=1).mean()),
    }
    stricter = held_out(tiny_trainer(reward=thirds))
    assert stricter.pass_at((1, 8)) == {"1": 0.0, "8": 0.0}
    assert measure.pass_at(()) == {}
