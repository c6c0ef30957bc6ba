"""A clipping norm to begin with, found by a dry run on public prompts.

Nothing private is touched: the prompts are those of the evaluation, which no client has, and the
adapter is the one that every run starts from. So the result costs no privacy, and prompts need no
isolation from each other: they are computed as a simulation computes everybody's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.ownership import evaluation_prompts
from fedgrpo.federation.node.clients.client import local_update
from fedgrpo.federation.node.clients.unit_rows import UnitRows
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.simulation.batched.completions import part, sampled_together
from fedgrpo.federation.simulation.batched.lessons import gradients
from fedgrpo.federation.simulation.batched.prompts import judged
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.grpo.learning.isolation import require_isolation
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.settings import Settings
from fedgrpo.site.declared import declared_by

DRY_ROUNDS = 16
"""Local trainings whose update norms are looked at (client unit, and none)."""

Say = Callable[[str], None]
"""Told what is being done, a sentence at a time."""


def calibrated_norm(settings: Settings, say: Say = lambda _: None) -> float:
    """Return the quantile of norms that ``privacy.quantile`` asks for, on public prompts.

    Prompt unit: L2 norms of the gradients of all public prompts that teach something. Otherwise: of
    the updates of :data:`DRY_ROUNDS` clients' local steps, each from the start of the run. Norms
    tend to shrink as a run goes on, which ``privacy.adaptive`` follows. Raises PrivacyError if no
    prompt teaches anything, so that there is no norm.

    Parameters
    ----------
    settings:
        The run's; ``evaluation.prompts`` says how many public prompts there are.
    say:
        Told before and after what takes long.
    """
    norms = public_norms(settings, say)
    if not norms.size:
        raise PrivacyError(
            f"none of {settings.evaluation.prompts} public prompts gives a gradient",
            cure="raise evaluation.prompts or grpo.group_size, or check the reward",
        )
    low, high = norms.min(), norms.max()
    say(f"{norms.size} norms, {low:.3g} to {high:.3g}; quantile {settings.privacy.quantile:g}:")
    return float(np.quantile(norms, settings.privacy.quantile))


def public_norms(settings: Settings, say: Say = lambda _: None) -> NDArray[np.float64]:
    """Norms of what one unit contributes, on public prompts: those above 0, float64, shape (m,)."""
    finders = _unit_norms if settings.privacy.unit == "prompt" else _update_norms
    norms = np.array(finders(settings, say), dtype=np.float64)
    return norms[(norms > 0) & (norms < np.inf)]


def _unit_norms(settings: Settings, say: Say) -> list[float]:
    """Norms of the gradients of all public units."""
    require_isolation(settings.grpo)
    prompts, grpo = evaluation_prompts(settings), settings.grpo
    say(
        f"{len(prompts)} public prompts with {grpo.group_size} completions each of at most "
        f"{grpo.max_completion_length} tokens: {settings.model.name} is loaded and sampled"
    )
    began = time.monotonic()
    adapter, reward = Adapter.from_settings(settings), isolated_mixture(settings.reward)
    policy, watch = Policy(adapter, grpo), Watch()
    policy.generator.manual_seed(settings.seed)
    reward.bind(adapter)
    key = hashlib.sha256(f"public {settings.seed}".encode()).digest()
    units = UnitRows(settings, adapter.base, prompts, declared_by({"partition-id": 0}, settings))
    rows = [row for name in units.units for row in units.rows(name, key) if row.ids]
    (rollout,) = sampled_together(policy, [[row.ids for row in rows]])
    say(f"sampled in {time.monotonic() - began:.0f} s; judged, and a gradient is taken of each")
    groups = [
        judged(policy, reward, prompts[row.index], part(rollout, i, i + 1), watch)
        for i, row in enumerate(rows)
    ]
    sums = {row.unit: np.zeros(adapter.dimension) for row in rows}
    for place, gradient in gradients(policy, groups):
        sums[rows[place].unit] += gradient.numpy()
    say(f"done in {time.monotonic() - began:.0f} s")
    return [float(np.linalg.norm(total)) for total in sums.values()]


def _update_norms(settings: Settings, say: Say) -> list[float]:
    """Norms of the updates of a few dry rounds."""
    say(f"{DRY_ROUNDS} dry rounds of {settings.model.name}, of {settings.grpo.steps} steps each")
    trainer = GRPOTrainer.from_settings(settings, evaluation_prompts(settings))
    start, norms = trainer.adapter.state(), []
    for dry in range(DRY_ROUNDS):
        trainer.adapter.load(start)
        trainer.start_round(settings.seed + dry)
        began = time.monotonic()
        norms.append(float(np.linalg.norm(local_update(trainer)[0])))
        say(f"round {dry + 1}: {time.monotonic() - began:.1f} s")
    return norms
