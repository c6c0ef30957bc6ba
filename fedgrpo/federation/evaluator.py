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
from fedgrpo.grpo.sampling import Rollout
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import Settings


class LocalEvaluator:
    """Evaluates adapters on the held-out prompts, always with the same random numbers.

    The trainer never trains, so its reference stays what it was made with: the start of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        rows = evaluation_prompts(settings)
        reward = RewardMixture.from_settings(settings.reward)
        self.trainer = GRPOTrainer(
            Adapter(load_base(settings.model), settings.adapter, settings.seed),
            reward,
            rows,
            settings=settings.grpo,
        )

    def initial(self) -> AdapterState:
        """The adapter that the run starts from, with its frozen basis."""
        with self.trainer.adapter.at(self.trainer.policy.reference):
            return self.trainer.adapter.state()

    def evaluate(self, adapter: AdapterState) -> Evaluation:
        """See :class:`fedgrpo.federation.interfaces.Evaluator`."""
        self.trainer.adapter.load(adapter)
        sampled, rollout = self._reward(self.settings.grpo.temperature)
        greedy, _ = self._reward(0.0)
        drift = self.trainer.policy.divergence(rollout, range(len(rollout.tokens)))
        return Evaluation(sampled, greedy, drift)

    def save(self, adapter: AdapterState, folder: Path) -> None:
        """See :func:`save_adapter`."""
        self.trainer.adapter.load(adapter)
        self.trainer.adapter.save(folder)

    def _reward(self, temperature: float) -> tuple[float, Rollout]:
        """Mean reward of one completion a prompt."""
        policy, collector = self.trainer.policy, self.trainer.collector
        policy.generator.manual_seed(self.settings.seed)
        plan = policy.sampling_plan(group_size=1, temperature=temperature)
        rollout = policy.rollout(collector.encoded, plan)
        result = collector.reward_of(rollout, collector.rows)
        return float(result.total.mean()), rollout


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
