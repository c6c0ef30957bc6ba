"""The server's own measurements: held-out accuracy, sampled and greedy, and the drift from the
start.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from fedgrpo.data.ownership import evaluation_prompts
from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.machine import computing_threads
from fedgrpo.ground.records import Evaluation
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.base import check_context
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.apart.mixture import guarded_mixture
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import Settings


class LocalEvaluator:
    """Evaluates adapters on the held-out prompts, always with the same random numbers.

    Nothing trains here, so the reference stays what it was made with: the start of the run.

    Parameters
    ----------
    settings:
        Model, adapter, reward and held-out prompts are read.
    rows, reward:
        Take the place of the held-out prompts and the reward that the settings name. No rows at
        all: nothing is measured.
    """

    def __init__(
        self,
        settings: Settings,
        rows: Sequence[PromptRow] | None = None,
        reward: RewardMixture | None = None,
    ) -> None:
        self.adapter = Adapter.from_settings(settings)
        check_context(self.adapter.base, settings.grpo)
        self._initial, self._settings = self.adapter.state(), settings.evaluation
        rows = evaluation_prompts(settings) if rows is None else rows
        mixture = reward or guarded_mixture(settings.reward, evaluation=True)
        self.held_out = (
            HeldOut(self.adapter, mixture, rows, settings.grpo, settings.seed) if rows else None
        )

    def initial(self) -> AdapterState:
        """The adapter that the run starts from, with its frozen basis."""
        return self._initial

    def evaluate(self, adapter: AdapterState, *, at_end: bool = False) -> Evaluation | None:
        """See :class:`fedgrpo.federation.server.evaluation.Evaluator`."""
        if self.held_out is None:
            return None
        self.adapter.load(adapter)
        return self.held_out.evaluate(self._settings, at_end=at_end)

    def save(self, adapter: AdapterState, folder: Path) -> None:
        """See :func:`save_adapter`."""
        self.adapter.load(adapter)
        self.adapter.save(folder)


@lru_cache(maxsize=1)
def local_evaluator(settings: Settings) -> LocalEvaluator:
    """Load the base model for the server, on as many threads as OMP_NUM_THREADS says, or on all
    cores that it may use.
    """
    torch.set_num_threads(computing_threads())
    return LocalEvaluator(settings)


def initial_adapter(settings: Settings) -> AdapterState:
    """Make the adapter that a run starts from. Only the server does: see :class:`AdapterState`."""
    return local_evaluator(settings).initial()


def save_adapter(settings: Settings, adapter: AdapterState, directory: Path) -> None:
    """Write an adapter in PEFT's own format: ``PeftModel.from_pretrained`` loads it."""
    local_evaluator(settings).save(adapter, directory)
