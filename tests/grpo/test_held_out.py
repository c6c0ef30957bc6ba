"""Held-out figures depend on the adapter alone, and measuring leaves training as it was."""

import numpy as np
import pytest

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo import HeldOut
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
