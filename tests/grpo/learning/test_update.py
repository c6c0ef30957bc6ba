"""An update that runs out of memory begins again in halves, once, and comes to the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.learning.update import Updater
from fedgrpo.grpo.rollout.packing import pack
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.settings import GRPOSettings
from tests.models import graded, rows, tiny_base

SETTINGS = GRPOSettings(prompts_per_step=3, group_size=4, max_completion_length=6, optimiser="sgd")


class Small(Updater):
    """On a device that takes batches of so many completions."""

    most = 8

    def loss(self, experience: Any, batch: Any, *rest: Any) -> Any:
        if len(batch.completions) > self.most:
            raise torch.OutOfMemoryError("as large as that")
        return super().loss(experience, batch, *rest)


def test_memory_that_runs_out_halves_once_and_says_so() -> None:
    training = GRPOTrainer(tiny_base(), graded, rows(6), settings=SETTINGS)
    batch = training.gather()
    experience = replace(
        batch.experience, advantages=torch.linspace(-1, 1, len(batch.experience.advantages))
    )
    start = training.adapter.vector()
    training.updater.update(experience)
    whole = training.adapter.vector()
    training.adapter.set_vector(start)
    small = Small(training.policy)
    with pytest.warns(ResourceWarning, match="half the size"):
        assert small.update(experience).applied
    halved = training.adapter.vector()
    assert (whole != start).any()
    assert abs(whole - halved).max() < 1e-4 * abs(whole - start).max()
    small.most = 1
    with pytest.warns(ResourceWarning), pytest.raises(ModelError, match="twice"):
        small.update(experience)


def test_columns_that_fill_a_row_up_change_nothing_but_rounding() -> None:
    training = GRPOTrainer(tiny_base(), graded, rows(6), settings=SETTINGS)
    rollout = training.gather().experience.rollout
    every, found = range(len(rollout.mask)), []
    for columns in (1, 64):
        (batch,) = pack(rollout, every, tokens_per_batch=10**6, columns=columns)
        assert batch.ids.shape[1] % columns == 0
        with torch.no_grad():
            found.append(training.policy.logps(rollout, batch)[batch.completions.argsort()])
    assert torch.allclose(*found, atol=1e-5)
