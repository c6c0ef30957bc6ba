"""GRPO on one machine: sample groups, judge, compare, step. Knows nothing of any federation.

>>> from fedgrpo import GRPOTrainer
>>> trainer = GRPOTrainer("tiny", my_reward, [{"prompt": "sort 312=", "answer": "123"}])
>>> for metrics in trainer.train(steps=100):
...     print(metrics.reward)
>>> trainer.save("adapter")
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fedgrpo.data.prompts import PromptRow, as_row
from fedgrpo.ground.callbacks import tell
from fedgrpo.grpo.collection import Collector
from fedgrpo.grpo.learning.advantages import ADVANTAGES
from fedgrpo.grpo.learning.best import BestKeeper
from fedgrpo.grpo.learning.health import (
    HISTORY,
    TrainingWarning,
    missed_ends,
    step_size_advice,
    symptoms,
)
from fedgrpo.grpo.learning.losses import LOSSES
from fedgrpo.grpo.learning.metrics import BatchFigures, StepMetrics, batch_figures
from fedgrpo.grpo.learning.schedule import rate_share
from fedgrpo.grpo.learning.update import Updater, prompt_parts
from fedgrpo.grpo.methods.credit import CREDITS
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.base import (
    TINY,
    BaseModel,
    check_context,
    load_base,
    longest_row,
    precision_advice,
)
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.apart.mixture import guarded_mixture
from fedgrpo.rewards.calling.context import TrainerState
from fedgrpo.rewards.composite import RewardArgument, RewardMixture
from fedgrpo.settings import AdapterSettings, DataSettings, GRPOSettings, ModelSettings, Settings


@dataclass(frozen=True)
class Batch:
    """Judged completions that still owe optimiser steps.

    Attributes
    ----------
    experience, figures:
        The completions, and what they say.
    parts:
        Positions of the prompts of each step to come.
    """

    experience: Experience
    figures: BatchFigures
    parts: tuple[tuple[int, ...], ...]


class GRPOTrainer:
    """Group relative policy optimisation of a LoRA adapter (arXiv 2402.03300).

    Parameters
    ----------
    model:
        ``tiny``, a folder, a Hub name, or an :class:`Adapter` that is loaded already.
    reward_funcs:
        One function, several, or a weighted mixture; TRL's convention ``f(prompts, completions,
        **columns)``.
    prompts:
        Rows with a ``prompt`` (text or chat messages) and columns for the rewards.
    settings, adapter_settings:
        Algorithm and adapter; see :mod:`fedgrpo.settings`.
    seed:
        Of prompts and completions. ``None`` draws one from the operating system, as privacy asks
        for.
    max_failing:
        Largest share of the prompts that may be left out because the model cannot take them.

    Attributes
    ----------
    policy, collector, credit, updater:
        The parts: what samples and scores, what picks prompts and judges, what shares out credit
        among tokens, what learns.
    keeper:
        The best adapter so far.
    steps_done:
        Optimiser steps since the start of the round.
    planned:
        Steps after which the training asked for is over; 0 before.
    earlier, of_run:
        Steps of a federated run before this round, and in all; 0 outside of one.
    history:
        Figures of the last steps, oldest first.
    """

    def __init__(
        self,
        model: str | BaseModel | Adapter,
        reward_funcs: RewardArgument,
        prompts: Sequence[PromptRow | Mapping[str, Any]],
        *,
        settings: GRPOSettings | None = None,
        adapter_settings: AdapterSettings | None = None,
        seed: int | None = 0,
        max_failing: float = DataSettings().max_failing,
    ) -> None:
        self.settings = (settings or GRPOSettings()).following(shipped=_is_shipped(model))
        longest = longest_row(self.settings)
        self.adapter = _adapter(model, adapter_settings or AdapterSettings(), seed or 0, longest)
        check_context(self.adapter.base, self.settings)
        rows = [
            row if isinstance(row, PromptRow) else as_row(row, "prompts", number)
            for number, row in enumerate(prompts, start=1)
        ]
        self.policy = Policy(self.adapter, self.settings)
        self.collector = Collector(self.policy, RewardMixture.of(reward_funcs), rows, max_failing)
        self.updater = Updater(self.policy)
        self.start_round(seed)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        rows: Sequence[PromptRow | Mapping[str, Any]],
        *,
        adapter: Adapter | None = None,
        reward: RewardArgument | None = None,
    ) -> Self:
        """Make the trainer that the settings describe, over these prompts.

        Parameters
        ----------
        settings:
            ``model``, ``adapter``, ``reward``, ``grpo`` and ``seed`` are read, and users' own of
            ``privacy.metrics``.
        rows:
            Prompts with the columns that the rewards need.
        adapter:
            One that is loaded already; None loads the settings' own.
        reward:
            Takes the place of the reward that the settings name.

        Raises
        ------
        FedGRPOError
            Of the kind that fits, with the setting and the cure.
        """
        ADVANTAGES.check(settings.grpo.advantage)
        LOSSES.check(settings.grpo.loss)
        metrics = settings.privacy.own_metrics
        mixture = guarded_mixture(settings.reward, metrics) if reward is None else reward
        adapter = adapter or Adapter.from_settings(settings)
        return cls(
            adapter,
            mixture,
            rows,
            settings=settings.grpo,
            seed=settings.seed,
            max_failing=settings.data.max_failing,
        )

    def start_round(self, seed: int | None, *, earlier: int = 0, of_run: int = 0) -> None:
        """Take the adapter as it stands as reference, with a fresh optimiser and fresh random
        numbers.

        What follows depends on adapter, settings and what is given alone, so a federated round can
        be repeated.

        Parameters
        ----------
        seed:
            As in :class:`GRPOTrainer`.
        earlier, of_run:
            Steps of the run before this round, and of all its rounds, for the learning rate's
            schedule; without, a run is what :meth:`train` is asked for.
        """
        self.earlier, self.of_run = earlier, of_run
        self.collector.start_round(seed)
        self.updater.start_round()
        self.credit = CREDITS[self.settings.credit](self.collector)
        self.pending: Batch | None = None
        self.keeper = BestKeeper()
        self.steps_done = 0
        self.planned = 0
        self.history: deque[StepMetrics] = deque(maxlen=HISTORY)

    def train(self, steps: int, *, callbacks: Sequence[object] = ()) -> Iterator[StepMetrics]:
        """Take optimiser steps, yielding the figures of each; warn of what keeps it from
        learning. A step is taken when its figures are asked for.

        Parameters
        ----------
        steps:
            How many.
        callbacks:
            Told of each step: see :class:`fedgrpo.ground.callbacks.Callback`.
        """
        return Steps(self._train(steps, callbacks))

    def _train(self, steps: int, callbacks: Sequence[object]) -> Iterator[StepMetrics]:
        _warn(step_size_advice(self.adapter.settings.kind, self.settings))
        _warn(precision_advice(self.adapter.base.settings))
        self.planned = self.steps_done + steps
        for _ in range(steps):
            metrics = self.step()
            tell(callbacks, "on_step", metrics)
            _warn(symptoms(self.history))
            yield metrics

    def step(self, chosen: Sequence[int] | None = None) -> StepMetrics:
        """One optimiser step.

        Parameters
        ----------
        chosen:
            Numbers of the prompts to sample for. By default the step takes what earlier completions
            still owe, or else the next prompts.
        """
        started = time.monotonic()
        fresh = chosen is not None or self.pending is None
        batch = self.gather(chosen) if fresh else self.pending
        assert batch is not None
        part = batch.experience.part(batch.parts[0])
        done, total = self.earlier + self.steps_done, self.of_run or self.planned
        self.updater.set_rate(rate_share(self.settings, done, total))
        update = self.updater.update(part)
        left = batch.parts[1:]
        self.pending = Batch(batch.experience, batch.figures, left) if left else None
        self.steps_done += 1
        seconds = time.monotonic() - started
        metrics = StepMetrics(
            **vars(batch.figures),
            **vars(update),
            step=self.steps_done,
            seconds=seconds,
            tokens_per_second=batch.figures.tokens / seconds if fresh else 0.0,
        )
        self.history.append(metrics)
        return metrics

    def gather(self, chosen: Sequence[int] | None = None) -> Batch:
        """Sample and judge the completions of the next steps."""
        before = self.policy.sampled
        self.collector.progress = TrainerState(self.steps_done, self.planned)
        prompts = self.next_prompts() if chosen is None else chosen
        first = self.collect(prompts)
        rows = [self.collector.rows[i] for i in prompts]
        experience = self.credit.assign(self.collector.refilled(first), rows)
        sampled = self.policy.sampled - before
        figures = batch_figures(self.policy, first, experience, sampled)
        self.keeper.see(self.steps_done, figures.reward, self.adapter.vector())
        _warn(missed_ends(experience.rollout, self.adapter.base))
        return Batch(experience, figures, _parts(experience.prompts, self.settings))

    def collect(self, chosen: Sequence[int]) -> Experience:
        """See :meth:`Collector.collect`."""
        return self.collector.collect(chosen)

    def next_prompts(self, count: int | None = None) -> list[int]:
        """See :meth:`Collector.next_prompts`."""
        return self.collector.next_prompts(count)

    def save(self, folder: str | Path) -> None:
        """Write the adapter in PEFT's own format."""
        self.adapter.save(Path(folder))

    def save_best(self, folder: str | Path) -> None:
        """Write the adapter with the best training reward, or the last one if it is too early to
        tell.
        """
        best = self.keeper.best
        with self.adapter.at(best.vector if best else self.adapter.vector()):
            self.save(folder)


class Steps(Iterator[StepMetrics]):
    """Steps to come; warns if nobody ever asks for one, since nothing is trained then."""

    def __init__(self, steps: Iterator[StepMetrics]) -> None:
        self._steps = steps
        self._asked = False

    def __next__(self) -> StepMetrics:
        self._asked = True
        return next(self._steps)

    def __del__(self) -> None:
        if not self._asked:
            _warn(
                [
                    "train() was called and no step was taken: write `for metrics in "
                    "trainer.train(steps)`, or list(trainer.train(steps))."
                ]
            )


def _parts(prompts: int, settings: GRPOSettings) -> tuple[tuple[int, ...], ...]:
    """Prompts of each step that a batch serves: ``passes`` times over ``minibatches`` parts."""
    once = [tuple(part) for part in prompt_parts(prompts, settings.minibatches)]
    return tuple(once * settings.passes)


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, TrainingWarning, stacklevel=3)


def _is_shipped(model: str | BaseModel | Adapter) -> bool:
    base = model.base if isinstance(model, Adapter) else model
    name = base if isinstance(base, str) else str(base.model.name_or_path)
    return name in ("tiny", str(TINY))


def _adapter(
    model: str | BaseModel | Adapter, settings: AdapterSettings, seed: int, longest: int
) -> Adapter:
    if isinstance(model, Adapter):
        return model
    if isinstance(model, str):
        model = load_base(ModelSettings(name=model), longest=longest)
    return Adapter(model, settings, seed)
