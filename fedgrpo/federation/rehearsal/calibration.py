"""A clipping norm to begin with, found by a dry run on public prompts.

Nothing private is touched: the prompts are those of the evaluation, which no client has, and the
adapter is the one that every run starts from. So the result costs no privacy.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.ownership import evaluation_prompts
from fedgrpo.federation.node.clients.client import local_update
from fedgrpo.federation.node.clients.prompt_client import PromptClient, in_order, unit_gradient
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.grpo.isolated.engine import Lesson
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.settings import Settings
from fedgrpo.site.declared import declared_by

DRY_ROUNDS = 16
"""Local trainings whose update norms are looked at (client unit, and none)."""


def calibrated_norm(settings: Settings) -> float:
    """Return the quantile of norms that ``privacy.quantile`` asks for, on public prompts.

    Prompt unit: L2 norms of the gradients of all public prompts that teach something. Otherwise: of
    the updates of :data:`DRY_ROUNDS` clients' local steps, each from the start of the run. Norms
    tend to shrink as a run goes on, which ``privacy.adaptive`` follows. Raises PrivacyError if no
    prompt teaches anything, so that there is no norm.

    Parameters
    ----------
    settings:
        The run's; ``evaluation.prompts`` says how many public prompts there are.
    """
    norms = public_norms(settings)
    if not norms.size:
        raise PrivacyError(
            f"none of {settings.evaluation.prompts} public prompts gives a gradient",
            cure="raise evaluation.prompts or grpo.group_size, or check the reward",
        )
    return float(np.quantile(norms, settings.privacy.quantile))


def public_norms(settings: Settings) -> NDArray[np.float64]:
    """Norms of what one unit contributes, on public prompts: those above 0, float64, shape (m,)."""
    finders = _unit_norms if settings.privacy.unit == "prompt" else _update_norms
    norms = np.array(finders(settings), dtype=np.float64)
    return norms[(norms > 0) & (norms < np.inf)]


def _unit_norms(settings: Settings) -> list[float]:
    """Norms of the gradients of all public units."""
    client = public_client(settings)
    key = hashlib.sha256(f"public {settings.seed}".encode()).digest()
    rows = [row for name in client.units for row in client.rows(name, key) if row.ids]
    watch, units = Watch(None, "", math.inf), defaultdict[str, list[Lesson]](list)
    for lessons, _ in client.engine.teach(client.engine.collect(rows, watch), watch):
        for lesson in lessons:
            units[lesson.judged.row.unit].append(lesson)
    dimension = client.engine.policy.adapter.dimension
    return [
        float(np.linalg.norm(unit_gradient(in_order(lessons), dimension)))
        for lessons in units.values()
    ]


def public_client(settings: Settings) -> PromptClient:
    """A client over public prompts, with the adapter that every run starts from."""
    adapter = Adapter.from_settings(settings)
    mixture, rows = isolated_mixture(settings.reward), evaluation_prompts(settings)
    declared = declared_by({"partition-id": 0}, settings)
    return PromptClient(settings, adapter, mixture, rows, declared)


def _update_norms(settings: Settings) -> list[float]:
    """Norms of the updates of a few dry rounds."""
    trainer = GRPOTrainer.from_settings(settings, evaluation_prompts(settings))
    start, norms = trainer.adapter.state(), []
    for dry in range(DRY_ROUNDS):
        trainer.adapter.load(start)
        trainer.start_round(settings.seed + dry)
        norms.append(float(np.linalg.norm(local_update(trainer)[0])))
    return norms
