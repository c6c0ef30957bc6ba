"""From settings to a trainer and its held-out measurement."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from fedgrpo.data.failing import check_failing, failing_words
from fedgrpo.data.ownership import (
    all_prompts,
    evaluation_prompts,
    held_out_and_trained_on,
    left_out,
    training_prompts,
)
from fedgrpo.ground.errors import all_at_once
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.grpo.learning.health import TrainingWarning
from fedgrpo.grpo.methods.parts import check_parts
from fedgrpo.grpo.rollout.usable import check_start, held_out_reward
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import model_source
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import Settings


@dataclass(frozen=True)
class Preparation:
    """Everything that training needs, before its first step.

    Attributes
    ----------
    settings:
        Of the run.
    trainer, held_out:
        On one adapter, each with random numbers of its own.
    steps:
        Optimiser steps in all: ``rounds`` x ``grpo.steps``.
    interval:
        Steps between two evaluations: ``evaluation.every`` x ``grpo.steps``.
    """

    settings: Settings
    trainer: GRPOTrainer
    held_out: HeldOut
    steps: int
    interval: int

    def is_due(self, step: int) -> bool:
        """Whether the adapter is measured after this many steps: first, last, and in between."""
        return step % self.interval == 0 or step == self.steps


def check(settings: Settings) -> None:
    """Find all that can be known to be wrong before the model is loaded.

    Raises
    ------
    FedGRPOError
        All faults at once.
    """
    all_at_once(
        [
            lambda: check_parts(settings.grpo),
            lambda: model_source(settings.model.name),
            *check_start(
                settings, lambda: all_prompts(settings), lambda: evaluation_prompts(settings)
            ),
        ]
    )


def prepare(settings: Settings, adapter: Adapter | None = None) -> Preparation:
    """Load the model, the rewards and the prompts; an adapter takes the place of the settings' own.

    ``secure``, ``robust``, ``server``, ``federation`` and ``simulation`` are not read, and of
    ``privacy`` nothing but metrics of users' own.

    Raises
    ------
    FedGRPOError
        Of the kind that fits, with the setting, its value and the cure.
    """
    check(settings)
    rows, held = training_prompts(settings), evaluation_prompts(settings)
    trainer = GRPOTrainer.from_settings(settings, rows, adapter=adapter)
    unread = left_out(settings)
    failures = [*unread, *trainer.collector.left_out]
    check_failing(failures, len(rows) + len(unread), settings.data.max_failing)
    for sentence in filter(None, [*failing_words(unread), held_out_and_trained_on(settings)]):
        warnings.warn(sentence, TrainingWarning, stacklevel=2)
    mixture = held_out_reward(settings, trainer.collector.reward)
    return Preparation(
        settings,
        trainer,
        HeldOut(trainer.adapter, mixture, held, settings.grpo, settings.seed),
        settings.rounds * settings.grpo.steps,
        settings.evaluation.every * settings.grpo.steps,
    )
