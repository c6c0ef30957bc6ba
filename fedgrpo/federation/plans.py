"""What a round's releases look like, worked out alike by server and nodes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict

import numpy as np

from fedgrpo.errors import ProtocolError, SettingsError
from fedgrpo.federation.checkpoint import Progress
from fedgrpo.federation.messages import Header
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.accounting import worst_epsilon
from fedgrpo.privacy.adaptive import indicator_share
from fedgrpo.privacy.release import ReleasePlan, holder_noise_std
from fedgrpo.settings import Settings

LOG = logging.getLogger(__name__)


def release_plan(settings: Settings, dimension: int, clipping_norm: float) -> ReleasePlan:
    """Derive a round's plan from the settings; only the clipping norm changes from round to round.

    Each node computes it from its own copy of the settings, so that a server cannot ask for less
    noise or a coarser clip by saying so in a message.

    Parameters
    ----------
    settings:
        The run's.
    dimension:
        Trainable values of the adapter, d.
    clipping_norm:
        L2 norm C of this round.

    Raises
    ------
    ProtocolError
        If the clipping norm is not positive and finite, or changed where it must not.
    """
    privacy = settings.privacy
    if not (math.isfinite(clipping_norm) and clipping_norm > 0):
        raise ProtocolError(
            f"clipping norm {clipping_norm} is not positive and finite",
            cure="start a new run from sound settings",
        )
    if not privacy.adaptive and clipping_norm != privacy.clipping_norm:
        raise ProtocolError(
            f"clipping norm {clipping_norm} is not the agreed {privacy.clipping_norm}",
            cure="set privacy.adaptive = true, or use privacy.clipping_norm in every round",
        )
    return ReleasePlan(
        unit=privacy.unit,
        dimension=dimension,
        clipping_norm=clipping_norm,
        expected_prompts=settings.grpo.prompts_per_step,
        noise_std=holder_noise_std(privacy),
        metrics_share=privacy.metrics_share,
        indicator_share=_indicator_share(settings) if privacy.adaptive else 0.0,
    )


def plan_hash(
    settings: Settings, header: Header, adapter: AdapterState, plan: ReleasePlan, source: str
) -> str:
    """SHA-256 (hex) of everything that decides a node's release. An equal hash is the same release.

    Parameters
    ----------
    settings, header, adapter, plan:
        Of the round.
    source:
        What tells the node's prompts from others, see
        :func:`fedgrpo.data.ownership.prompts_stamp`.
    """
    vector = hashlib.sha256(np.ascontiguousarray(adapter.vector).tobytes()).hexdigest()
    parts = [
        settings.fingerprint(),
        asdict(header),
        [vector, adapter.basis_hash, adapter.layout],
        asdict(plan),
        source,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def norms_in(settings: Settings, holders: int) -> int:
    """Norms that these holders tell about in a round: their own, or those of their prompts."""
    prompts = settings.grpo.prompts_per_step if settings.privacy.unit == "prompt" else 1
    return holders * prompts


def _indicator_share(settings: Settings) -> float:
    """Share of the sensitivity for the clipping indicator: one draw of noise covers the bits of
    one holder, or of the whole cohort where the server adds it.
    """
    privacy = settings.privacy
    holders = settings.federation.min_holders if privacy.noise == "server" else 1
    return indicator_share(norms_in(settings, holders), privacy.noise_multiplier)


def affordable_round(settings: Settings, progress: Progress, wanted: int | None) -> int:
    """Return the last round to run: the one wanted, or an earlier one if repeated rounds have used
    up the budget.

    Parameters
    ----------
    settings:
        Name the rounds and the largest epsilon.
    progress:
        Where the run stands.
    wanted:
        None means all of ``settings.rounds``.

    Raises
    ------
    SettingsError
        If more rounds are wanted than the settings name, for which the budget was checked.
    """
    last = settings.rounds if wanted is None else wanted
    if last > settings.rounds:
        raise SettingsError(
            f"num_rounds = {last} is more than rounds = {settings.rounds}", cure="raise rounds"
        )
    limit, spare = settings.privacy.max_epsilon, progress.charged + 1 - progress.round
    while last >= progress.round and (worst_epsilon(settings, last + spare) or 0.0) > limit:
        last -= 1
    if last < (wanted or settings.rounds):
        LOG.warning(
            f"interrupted rounds have spent privacy too: the run ends after round {last} to keep "
            f"epsilon within privacy.max_epsilon = {limit:g}"
        )
    return last
