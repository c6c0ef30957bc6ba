"""Releases of all clients under prompt-level privacy: the ordinary client's units, coins, rewards,
clipping and noise, with completions and gradients taken together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.poison import Poison
from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation.node.clients.figures import Span, of_groups, told_metrics
from fedgrpo.federation.node.clients.unit_rows import UnitRows, share_of
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.simulation.batched.completions import Answer, part, sampled_together
from fedgrpo.federation.simulation.batched.lessons import gradients
from fedgrpo.federation.simulation.batched.poisoning import forced
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.grpo.learning.judging import advantages
from fedgrpo.grpo.rollout.experience import Experience, judge
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.privacy.grid import GridSum
from fedgrpo.privacy.release import ReleasePlan, release_prompts
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import Settings

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pupil:
    """One client: its rows, its units, what judges its completions, and perhaps its poison."""

    rows: Sequence[PromptRow]
    units: UnitRows
    reward: RewardMixture
    poison: Poison | None = None


@dataclass
class Turn:
    """One client in one round.

    Attributes
    ----------
    key:
        Of all of its randomness but the completions'.
    groups:
        Judged completions of each sampled prompt; None of one that failed.
    total:
        Sum of what its units say, once that is known.
    """

    pupil: Pupil
    key: bytes
    watch: Watch = field(default_factory=Watch)
    groups: list[Experience | None] = field(default_factory=list)
    total: GridSum = field(default_factory=lambda: GridSum.nothing(0, 0))


def released(
    settings: Settings,
    policy: Policy,
    pupils: Mapping[int, Pupil],
    keys: Mapping[int, bytes],
    plan: ReleasePlan,
) -> dict[int, Answer]:
    """What each client releases, by its number.

    Parameters
    ----------
    policy:
        Holds the round's adapter; its generator is seeded for the round.
    pupils, keys:
        Those who take part, by number.
    plan:
        Of the round.
    """
    turns = {number: Turn(pupil, keys[number]) for number, pupil in pupils.items()}
    collect(policy, list(turns.values()), plan)
    sum_up(settings, policy, list(turns.values()), plan)
    return {
        number: Answer(
            release_prompts(turn.total, plan, derive_key(turn.key, "noise")), turn.watch.mishaps
        )
        for number, turn in turns.items()
    }


def collect(policy: Policy, turns: Sequence[Turn], plan: ReleasePlan) -> None:
    """Toss every client's coins, sample for all at once, and judge one prompt's group at a time."""
    sampled = [turn.pupil.units.sampled(plan, turn.key, turn.watch) for turn in turns]
    rollouts = sampled_together(policy, [[row.ids for row in rows] for rows in sampled])
    for turn, rows, rollout in zip(turns, sampled, rollouts, strict=True):
        turn.pupil.reward.bind(policy.adapter)
        prompts = [turn.pupil.rows[row.index] for row in rows]
        poison = turn.pupil.poison
        said = forced(policy, rollout, prompts, poison) if poison else rollout
        turn.groups = [
            judged(policy, turn.pupil.reward, prompt, part(said, i, i + 1), turn.watch)
            for i, prompt in enumerate(prompts)
        ]


def judged(
    policy: Policy, reward: RewardMixture, prompt: PromptRow, rollout: Rollout, watch: Watch
) -> Experience | None:
    """Judge one prompt's completions; None if that cannot be done, which costs nobody else."""
    experience: Experience | None
    try:
        with np.errstate(all="ignore"):
            texts, ids = policy.decode(rollout), completion_ids(rollout)
            rewards = judge(reward, [prompt], texts, ids, rollout.group_size)
            worth = advantages(policy.settings, reward, rollout, rewards, 1)
        experience = Experience(rollout, rewards, worth)
    except BaseException as error:
        # Whatever a reward does with one prompt's texts is that prompt's affair.
        pass_on_interrupt(error)
        experience = None
    if experience is None or not experience.advantages.isfinite().all():
        watch.mishaps["prompt left out: its completions cannot be judged"] += 1
        return None
    if not rollout.logps.isfinite().all():
        watch.mishaps["prompt left out: the model gave no distribution"] += 1
        return None
    return experience


def sum_up(settings: Settings, policy: Policy, turns: Sequence[Turn], plan: ReleasePlan) -> None:
    """Clip what each unit says by itself, and add it to its client's sum, which is exact in any
    order: no gradient is kept.
    """
    dimension, norm = policy.adapter.dimension, plan.clipping_norm
    owners = [turn for turn in turns for _ in turn.groups]
    groups = [group for turn in turns for group in turn.groups]
    # All clients are judged by the same metrics.
    told = _told(settings, groups, turns[0].pupil.reward.spans if turns else {})
    for turn in turns:
        turn.total = GridSum.nothing(dimension, len(plan.metrics))
    silent = {place for place, group in enumerate(groups) if group}
    for place, gradient in gradients(policy, groups):
        silent.discard(place)
        turn = owners[place]
        turn.total += share_of(gradient.numpy(), told[place], norm, turn.watch)
    nothing = np.zeros(dimension)
    for place in silent:
        turn = owners[place]
        turn.total += share_of(nothing, told[place], norm, turn.watch)


def _told(
    settings: Settings, groups: Sequence[Experience | None], spans: Mapping[str, Span]
) -> Floats:
    """Scaled metrics of each prompt, shape (n, k)."""
    there = [place for place, group in enumerate(groups) if group]
    told = np.full((len(groups), len(settings.privacy.coordinates)), np.nan)
    if there:
        each = [of_groups([g.per_prompt()]) for g in groups if g]
        figures = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        told[there] = told_metrics(figures, settings, spans)
    return told
