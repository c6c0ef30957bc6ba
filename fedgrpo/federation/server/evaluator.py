"""The server's own measurements: held-out accuracy, sampled and greedy, and the drift from the
start.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch

from fedgrpo.data.ownership import evaluation_prompts
from fedgrpo.federation.interfaces import Evaluation
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.base import check_context, load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import Settings


class LocalEvaluator:
    """Evaluates adapters on the held-out prompts, always with the same random numbers.

    Nothing trains here, so the reference stays what it was made with: the start of the run.
    """

    def __init__(self, settings: Settings) -> None:
        base = load_base(settings.model)
        check_context(base, settings.grpo)
        self.adapter = Adapter(base, settings.adapter, settings.seed)
        self.held_out = HeldOut(
            self.adapter,
            RewardMixture.from_settings(settings.reward),
            evaluation_prompts(settings),
            settings.grpo,
            settings.seed,
        )

    def initial(self) -> AdapterState:
        """The adapter that the run starts from, with its frozen basis."""
        with self.adapter.at(self.held_out.policy.reference):
            return self.adapter.state()

    def evaluate(self, adapter: AdapterState) -> Evaluation:
        """See :class:`fedgrpo.federation.interfaces.Evaluator`."""
        self.adapter.load(adapter)
        sampled, greedy = self.held_out.sampled(), self.held_out.greedy()
        return Evaluation(sampled.reward, greedy.reward, self.held_out.drift(sampled))

    def save(self, adapter: AdapterState, folder: Path) -> None:
        """See :func:`save_adapter`."""
        self.adapter.load(adapter)
        self.adapter.save(folder)


@lru_cache(maxsize=1)
def local_evaluator(settings: Settings) -> LocalEvaluator:
    """Load the base model for the server, on all of its cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    return LocalEvaluator(settings)


def initial_adapter(settings: Settings) -> AdapterState:
    """Make the adapter that a run starts from. Only the server does: see :class:`AdapterState`."""
    return local_evaluator(settings).initial()


def save_adapter(settings: Settings, adapter: AdapterState, directory: Path) -> None:
    """Write an adapter in PEFT's own format: ``PeftModel.from_pretrained`` loads it."""
    local_evaluator(settings).save(adapter, directory)
