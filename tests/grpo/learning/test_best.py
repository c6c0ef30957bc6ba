"""The best adapter is kept when training falls back."""

from pathlib import Path

import numpy as np

from fedgrpo.grpo.learning.best import WINDOW, BestKeeper
from tests.models import stirred, tiny_trainer


def values(folder: Path) -> bytes:
    """What PEFT would load."""
    return (folder / "adapter_model.safetensors").read_bytes()


def test_the_adapter_at_the_end_of_the_best_window_is_kept() -> None:
    keeper = BestKeeper()
    rewards = [0.1] * WINDOW + [0.9] * WINDOW + [0.3] * 20
    for step, reward in enumerate(rewards):
        keeper.see(step, reward, np.full(2, step, np.float32))
    assert keeper.best is not None
    assert keeper.best.step == 2 * WINDOW - 1
    assert keeper.best.reward == np.mean([0.9] * WINDOW)
    assert keeper.best.vector.tolist() == [2 * WINDOW - 1] * 2


def test_one_lucky_batch_is_not_the_best() -> None:
    keeper = BestKeeper()
    for step, reward in enumerate([1.0, *[0.2] * (WINDOW - 2)]):
        keeper.see(step, reward, np.zeros(1, np.float32))
    assert keeper.best is None


def test_a_later_change_of_the_vector_does_not_reach_the_kept_one() -> None:
    keeper, vector = BestKeeper(), np.ones(3, np.float32)
    for step in range(WINDOW):
        keeper.see(step, 1.0, vector)
    vector[:] = 0
    assert keeper.best is not None
    assert keeper.best.vector.tolist() == [1, 1, 1]


def test_the_best_adapter_is_saved_and_training_stays_where_it_was(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    stirred(trainer.adapter)
    for step in range(WINDOW):
        trainer.keeper.see(step, 1.0, trainer.adapter.vector())
    trainer.save(tmp_path / "then")
    last = stirred(trainer.adapter).vector()
    trainer.save_best(tmp_path / "best")
    trainer.save(tmp_path / "last")
    assert values(tmp_path / "best") == values(tmp_path / "then")
    assert values(tmp_path / "best") != values(tmp_path / "last")
    assert np.array_equal(trainer.adapter.vector(), last)


def test_the_last_adapter_is_saved_while_it_is_too_early_to_tell(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    stirred(trainer.adapter)
    trainer.save_best(tmp_path / "best")
    trainer.save(tmp_path / "last")
    assert values(tmp_path / "best") == values(tmp_path / "last")
