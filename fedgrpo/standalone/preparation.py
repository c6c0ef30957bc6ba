"""From settings to a trainer and its held-out measurement."""

from __future__ import annotations

from dataclasses import dataclass

from fedgrpo.data.ownership import evaluation_prompts, training_prompts
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.grpo.methods.parts import check_parts
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.settings import Settings


@dataclass(frozen=True)
class Preparation:
    """Everything that training needs, before its first step.

    Attributes
    ----------
    trainer, held_out:
        On one adapter, each with random numbers of its own.
    steps:
        Optimiser steps in all: ``rounds`` x ``grpo.steps``.
    interval:
        Steps between two evaluations: ``evaluation.every`` x ``grpo.steps``.
    """

    trainer: GRPOTrainer
    held_out: HeldOut
    steps: int
    interval: int

    def is_due(self, step: int) -> bool:
        """Whether the adapter is measured after this many steps: first, last, and in between."""
        return step % self.interval == 0 or step == self.steps


def prepare(settings: Settings) -> Preparation:
    """Load the model, the rewards and the prompts.

    ``privacy``, ``secure``, ``robust``, ``server``, ``federation`` and
    ``simulation`` are not read.

    Raises
    ------
    FedGRPOError
        Of the kind that fits, with the setting, its value and the cure.
    """
    check_parts(settings.grpo)
    rows, held = training_prompts(settings), evaluation_prompts(settings)
    trainer = GRPOTrainer.from_settings(settings, rows)
    mixture = trainer.collector.reward
    return Preparation(
        trainer,
        HeldOut(trainer.adapter, mixture, held, settings.grpo, settings.seed),
        settings.rounds * settings.grpo.steps,
        settings.evaluation.every * settings.grpo.steps,
    )
