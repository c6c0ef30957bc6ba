"""``fedgrpo dry-run``: what taking part would mean for a data holder, measured on its own prompts
without writing or sending anything.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.ownership import node_prompts
from fedgrpo.data.sources import Source
from fedgrpo.data.survey import Survey, survey_rows, survey_source
from fedgrpo.data.units import check_unit_column, unit_words, units_of
from fedgrpo.federation.node.clients.prompt_client import PromptClient, planned_shapes
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.rehearsal.traffic import round_traffic
from fedgrpo.ground.chats import Prompt
from fedgrpo.ground.errors import DataError, RewardError
from fedgrpo.grpo.forecast import Forecast, foretold, foretold_apart
from fedgrpo.grpo.learning.health import glance, missed_ends, step_size_advice
from fedgrpo.grpo.learning.metrics import BatchFigures, batch_figures
from fedgrpo.grpo.methods.parts import check_parts
from fedgrpo.grpo.rollout.experience import Experience, join_experiences, judge
from fedgrpo.grpo.rollout.policy import Policy, Sampled
from fedgrpo.grpo.rollout.sampling import completion_ids
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import precision_advice
from fedgrpo.model.encoding import encode_prompt, unit_text
from fedgrpo.model.lora import Adapter
from fedgrpo.model.memory import peak_gpu_memory, peak_memory
from fedgrpo.privacy.accounting.guarantees import check_budget
from fedgrpo.report.console.dry_run import DryRun, histogram
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.settings import DataSettings, Scalar, Settings
from fedgrpo.settings.scenario import absolute_source, load_scenario
from fedgrpo.site.declared import declared_by

SAMPLE = 32
"""Prompts that are sampled for, unless told otherwise."""
VALUE_BYTES = 4
"""An adapter's values are float32."""

_SIMULATED: Mapping[str, Scalar] = {"partition-id": 0}
"""Whoever makes a dry run is the site."""

T = TypeVar("T")


def dry_run(
    scenario: Path,
    *,
    prompts: str = "",
    overrides: Mapping[str, object] | None = None,
    sample: int = SAMPLE,
) -> DryRun:
    """Measure one local round on this machine. Nothing is written, and nothing leaves it.

    Adversary: none. Whoever runs it sees figures of its own prompts, without any noise, and should
    keep them to itself as it keeps the prompts.

    Parameters
    ----------
    scenario:
        TOML file of settings.
    prompts:
        The client's own file or dataset. Without it, the share of the scenario's first client.
    overrides:
        Dotted keys with values that take the place of the scenario's.
    sample:
        Most prompts that are sampled for; what they cost is drawn out to a round.

    Raises
    ------
    FedGRPOError
        Of the kind that fits, where the node could not take part at all; ModelError before anything
        is sampled if a round would not fit into memory.
    """
    settings = load_scenario(scenario, overrides or {}, Path.cwd())
    if not prompts:  # The first client is a simulated one; a deployed node uses all cores.
        torch.set_num_threads(settings.simulation.cpus_per_client)
    return rehearsed(settings, absolute_source(prompts, Path.cwd()), sample)


def rehearsed(settings: Settings, prompts: str, sample: int = SAMPLE) -> DryRun:
    """Measure a round of settings that are at hand; see :func:`dry_run`."""
    check_budget(settings)
    check_parts(settings.grpo)
    adapter = Adapter.from_settings(settings)
    survey = _survey(settings, adapter, prompts)
    declared = declared_by(_SIMULATED, settings).longest_prompt_tokens
    memory = foretold_round(settings, adapter, max(survey.lengths), declared)
    memory.check(private=settings.privacy.unit == "prompt")
    measure = _measure_apart if settings.privacy.unit == "prompt" else _measure
    measured = measure(settings, adapter, survey, min(sample, settings.grpo.prompts_per_step))
    traffic = round_traffic(settings, adapter.state())
    figures, experience = measured.figures, measured.experience
    return DryRun(
        prompts=survey.count,
        refused=dict(survey.refused),
        shortest=min(survey.lengths),
        longest=max(survey.lengths),
        sampled_prompts=experience.prompts,
        completions=len(experience.advantages),
        reward=figures.reward,
        rewards={
            name: histogram(values) for name, values in experience.rewards.per_function.items()
        },
        zero_signal=figures.zero_signal,
        truncated=figures.truncated,
        length=figures.length,
        tokens_per_second=figures.tokens / measured.sampling_s,
        judging_s=measured.judging_s,
        round_s=measured.round_s(settings),
        round_unit=_round_words(settings),
        peak_memory_bytes=peak_memory(),
        peak_gpu_bytes=peak_gpu_memory(adapter.base.device),
        foretold_bytes=memory.peak,
        free_bytes=memory.free,
        dimension=adapter.dimension,
        adapter_bytes=VALUE_BYTES * adapter.dimension,
        sent_bytes=traffic.sent,
        received_bytes=traffic.received,
        member_sent_bytes=traffic.member_sent,
        member_received_bytes=traffic.member_received,
        warnings=_warnings(settings, survey, measured, adapter),
    )


@dataclass(frozen=True)
class Measured:
    """One batch of completions, and what its parts cost in seconds.

    Attributes
    ----------
    experience, figures:
        The batch.
    collecting_s, judging_s:
        Sampling and judging together, and judging alone.
    figures_s:
        Measuring the batch, which prompt-level privacy does not do.
    update_s:
        Learning from the whole batch once: a gradient for each prompt under prompt-level privacy.
    """

    experience: Experience
    figures: BatchFigures
    collecting_s: float
    judging_s: float
    figures_s: float
    update_s: float

    @property
    def sampling_s(self) -> float:
        """Sampling alone."""
        return max(self.collecting_s - self.judging_s, 1e-6)

    def round_s(self, settings: Settings) -> float:
        """Draw the batch out to a round: more prompts, several batches, several updates of each."""
        grpo = settings.grpo
        scale = grpo.prompts_per_step / self.experience.prompts
        if settings.privacy.unit == "prompt":
            return scale * (self.collecting_s + self.update_s)
        batches = -(-grpo.steps // (grpo.passes * grpo.minibatches))
        gathering = batches * (self.collecting_s + self.figures_s)
        return scale * (gathering + grpo.steps * self.update_s / grpo.minibatches)


def _survey(settings: Settings, adapter: Adapter, source: str) -> Survey:
    base, limit = adapter.base, settings.grpo.max_prompt_length

    def length(prompt: Prompt) -> int:
        return len(encode_prompt(base.tokenizer, prompt, base.chat))

    if source:
        survey = survey_source(Source.of(settings.data, source), length, limit, RowLimit(limit))
    else:
        first = {"partition-id": 0, "num-partitions": settings.simulation.clients}
        survey = survey_rows(node_prompts(settings, first), length, limit)
    if not survey.rows:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in survey.refused.items())
        raise DataError(
            f"none of {survey.count} prompts can be used ({reasons or 'there are none'})",
            cure="mend the rows, or raise grpo.max_prompt_length",
        )
    return survey


def foretold_round(settings: Settings, adapter: Adapter, longest: int, declared: int) -> Forecast:
    """What a round would take of memory at its peak, on top of what is held by now.

    Parameters
    ----------
    longest, declared:
        Tokens of the longest prompt that there is, and that the site declares; the latter counts
        where prompts are to be hidden.
    """
    policy = Policy(adapter, settings.grpo)
    if settings.privacy.unit == "prompt":
        return foretold_apart(policy, planned_shapes(settings, adapter, declared))
    return foretold(policy, longest, settings.evaluation.prompts)


def _measure(settings: Settings, adapter: Adapter, survey: Survey, sample: int) -> Measured:
    """Take one step as the client would, on a few prompts, and put the adapter back."""
    trainer = GRPOTrainer.from_settings(settings, survey.rows, adapter=adapter)
    chosen = trainer.next_prompts(sample)
    trainer.collect(chosen[:1])  # What is slow only once is no round's cost.
    experience, collecting_s = _timed(lambda: trainer.collect(chosen))
    rows = [trainer.collector.rows[i] for i in chosen]
    _, judging_s = _timed(lambda: trainer.collector.reward_of(experience.rollout, rows))
    figures, figures_s = _timed(lambda: _figures(trainer.policy, experience))
    with adapter.at(adapter.vector()):
        _, update_s = _timed(lambda: trainer.updater.update(experience))
    return Measured(experience, figures, collecting_s, judging_s, figures_s, update_s)


def _measure_apart(settings: Settings, adapter: Adapter, survey: Survey, sample: int) -> Measured:
    """Compute what a few units say, as the client would under prompt-level privacy."""
    mixture = isolated_mixture(settings.reward, settings.privacy.own_metrics)
    declared = declared_by(_SIMULATED, settings)
    client = PromptClient(settings, adapter, mixture, survey.rows, declared)
    engine, watch = client.engine, Watch(None, "", math.inf)
    key = hashlib.sha256(f"dry run {settings.seed}".encode()).digest()
    rows = [row for name in list(client.units)[:sample] for row in client.rows(name, key)]
    engine.collect(rows[:1], watch)  # What is slow only once is no round's cost.
    judged, collecting_s = _timed(lambda: engine.collect(rows, watch))
    if not judged:
        raise RewardError(
            f"completions of none of {len(rows)} prompts could be judged",
            cure="call the reward functions with your prompts' columns, and mend what they raise",
        )
    experience = join_experiences([item.experience for item in judged])
    seen = [survey.rows[item.row.index] for item in judged]
    texts, ids = engine.policy.decode(experience.rollout), completion_ids(experience.rollout)
    group = settings.grpo.group_size

    def judged_again() -> None:
        for i, row in enumerate(seen):
            span = slice(i * group, (i + 1) * group)
            judge(mixture, [row], texts[span], ids[span], group)

    _, judging_s = _timed(judged_again)
    figures, figures_s = _timed(lambda: _figures(engine.policy, experience))
    _, update_s = _timed(lambda: list(engine.teach(judged, watch)))
    return Measured(experience, figures, collecting_s, judging_s, figures_s, update_s)


def _figures(policy: Policy, experience: Experience) -> BatchFigures:
    sampled = Sampled(len(experience.rollout.mask), int(experience.rollout.mask.sum()))
    return batch_figures(policy, experience, experience, sampled)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.monotonic()
    result = work()
    return result, time.monotonic() - started


def _warnings(
    settings: Settings, survey: Survey, measured: Measured, adapter: Adapter
) -> list[str]:
    found = [*glance(measured.figures), *missed_ends(measured.experience.rollout, adapter.base)]
    found += precision_advice(settings.model)
    if survey.refused:
        found.append(
            f"{sum(survey.refused.values())} rows cannot be used, and would count nothing. Mend "
            "them or take them out."
        )
    if settings.privacy.unit == "prompt":
        found += _unit_warnings(settings.data, survey, adapter)
    else:
        found += step_size_advice(adapter.settings.kind, settings.grpo)
    return found


def _unit_warnings(data: DataSettings, survey: Survey, adapter: Adapter) -> list[str]:
    """What is wrong with the units that these prompts make."""
    found = []
    try:
        check_unit_column(survey.rows, data.unit, "")
    except DataError as error:
        found.append(f"{error.problem.partition(': ')[2]}: {error.cure}.")
    base = adapter.base
    units = units_of(survey.rows, data.unit, lambda p: unit_text(base.tokenizer, p, base.chat))
    if len(units) < data.min_prompts:
        found.append(
            f"{unit_words(units, data.unit)}. That is fewer than data.min_prompts = "
            f"{data.min_prompts}, for which epsilon is stated: the node would refuse. Bring more "
            "prompts, or agree on a smaller data.min_prompts and a larger epsilon."
        )
    return found


def _round_words(settings: Settings) -> str:
    grpo = settings.grpo
    if settings.privacy.unit == "prompt":
        return f"one clipped gradient for each of {grpo.prompts_per_step} prompts"
    steps = f"{grpo.steps} step{'' if grpo.steps == 1 else 's'}"
    return f"{steps} of {grpo.prompts_per_step} prompts"
