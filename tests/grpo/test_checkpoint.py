"""A trainer that is stopped carries on to the bit, and refuses what it did not write."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedgrpo.ground.errors import RunError
from fedgrpo.grpo import GRPOTrainer
from fedgrpo.grpo.checkpoint import VERSION, load_trainer, save_trainer, trainer_state
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings
from tests.models import graded, tiny_trainer

pytestmark = pytest.mark.slow

STEPS = 7

CASES = {
    "fresh completions a step": {},
    "completions that serve six steps": {"passes": 3, "minibatches": 2},
    "groups replaced": {"max_resamples": 2},
    "penalty and bonus": {"kl_weight": 0.1, "entropy_weight": 0.01},
}


def trainer(**settings: object) -> GRPOTrainer:
    """11 prompts, 4 a step: shuffles end in the middle of steps."""
    return tiny_trainer(11, reward=graded, **settings)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop", [1, 4])
def test_stopping_at_any_step_gives_bit_equal_adapters(
    case: str, stop: int, tmp_path: Path
) -> None:
    whole = trainer(**CASES[case])
    expected = [step.reward for step in whole.train(STEPS)]
    first = trainer(**CASES[case])
    rewards = [step.reward for step in first.train(stop)]
    save_trainer(first, tmp_path / "state.pt")
    second = trainer(**CASES[case])
    list(second.train(1))
    load_trainer(second, tmp_path / "state.pt")
    rewards += [step.reward for step in second.train(STEPS - stop)]
    assert rewards == expected
    assert np.array_equal(second.adapter.vector(), whole.adapter.vector())
    assert np.array_equal(second.policy.reference, whole.policy.reference)
    ours, theirs = trainer_state(second), trainer_state(whole)
    for key in ("steps_done", "order", "prompt_numbers", "recent"):
        assert ours[key] == theirs[key]


def test_judges_are_lent_the_adapter_that_the_round_began_with(tmp_path: Path) -> None:
    class Judge:
        def bind(self, adapter: Adapter) -> None:
            self.began = adapter.vector()

        def __call__(self, completions: list[str], **columns: object) -> list[float]:
            return graded(completions)

    first, second = (tiny_trainer(11, reward=Judge()) for _ in range(2))
    list(first.train(2))
    save_trainer(first, tmp_path / "state.pt")
    load_trainer(second, tmp_path / "state.pt")
    judge = second.collector.reward._judges[0].function
    assert np.array_equal(judge.began, first.policy.reference)  # type: ignore[attr-defined]
    assert not np.array_equal(second.adapter.vector(), first.policy.reference)


def test_only_the_owner_may_read_a_state(tmp_path: Path) -> None:
    save_trainer(trainer(), tmp_path / "state.pt")
    assert stat.S_IMODE((tmp_path / "state.pt").stat().st_mode) == 0o600


def test_the_best_adapter_and_what_warnings_look_back_on_survive(tmp_path: Path) -> None:
    first = trainer()
    list(first.train(STEPS))
    save_trainer(first, tmp_path / "state.pt")
    second = trainer()
    load_trainer(second, tmp_path / "state.pt")
    assert first.keeper.best is not None
    assert second.keeper.best is not None
    assert np.array_equal(second.keeper.best.vector, first.keeper.best.vector)
    assert list(second.history) == list(first.history)


@pytest.mark.parametrize("kind", ["lora", "ffa_lora", "tiny_lora"])
def test_adapters_of_every_kind_carry_on(kind: str, tmp_path: Path) -> None:
    adapter = AdapterSettings(kind=kind, rank=2)
    vectors = []
    for stop in (0, 2):
        one = tiny_trainer(8, adapter, graded)
        list(one.train(stop))
        save_trainer(one, tmp_path / "state.pt")
        two = tiny_trainer(8, adapter, graded)
        load_trainer(two, tmp_path / "state.pt")
        list(two.train(3 - stop))
        vectors.append(two.adapter.vector())
    assert np.array_equal(*vectors)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda: trainer(learning_rate=0.5), "settings"),
        (lambda: tiny_trainer(12, reward=graded), "prompts"),
        (lambda: tiny_trainer(11, AdapterSettings(rank=2), graded), "model"),
        (lambda: tiny_trainer(11), "rewards"),
        (lambda: tiny_trainer(12), "rewards and other prompts"),
    ],
    ids=["settings", "prompts", "adapter", "reward", "two"],
)
def test_the_state_of_another_run_is_refused_and_told_what_is_not_the_same(
    other: Callable[[], GRPOTrainer], told: str, tmp_path: Path
) -> None:
    save_trainer(trainer(), tmp_path / "state.pt")
    with pytest.raises(RunError, match=f"is of other {told}\n") as caught:
        load_trainer(other(), tmp_path / "state.pt")
    assert "--fresh" in caught.value.cure


def test_how_much_memory_a_step_may_take_can_be_lowered_on_the_way(tmp_path: Path) -> None:
    save_trainer(trainer(), tmp_path / "state.pt")
    load_trainer(trainer(tokens_per_batch=64), tmp_path / "state.pt")


def test_a_damaged_file_is_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_trainer(trainer(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"state\.pt cannot be read"):
        load_trainer(trainer(), path)


@pytest.mark.parametrize(
    "other", [[1], {"version": VERSION}, {"version": VERSION, "began_with": 3}, "text"]
)
def test_a_file_of_something_else_is_refused_with_a_cure(other: object, tmp_path: Path) -> None:
    torch.save(other, tmp_path / "state.pt")
    with pytest.raises(RunError, match="trainer's state") as caught:
        load_trainer(trainer(), tmp_path / "state.pt")
    assert caught.value.cure


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    state = trainer_state(trainer()) | {"version": 99}
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(RunError, match="version 99"):
        load_trainer(trainer(), tmp_path / "state.pt")
