"""What a round's releases look like, worked out alike by server and nodes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from fedgrpo.federation.wire.messages import TrainOrder
from fedgrpo.ground.errors import ProtocolError, SettingsError
from fedgrpo.ground.parts.names import part_name
from fedgrpo.ledger.entries import order_digest as ledger_order
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.adaptive import RANGE, indicator_share, within_range
from fedgrpo.privacy.release import ReleasePlan, client_noise_std
from fedgrpo.robust.norm_checked import first_radius, next_radius
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of


def release_plan(
    settings: Settings, dimension: int, clipping_norm: float, radius: float | None = None
) -> ReleasePlan:
    """Derive a round's plan from the settings; only the clipping norm and, where norms are checked,
    a radius change from round to round.

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
    radius:
        Of this round's ball; 0 unless ``robust.rule`` checks norms. Whatever it is, projecting onto
        it lengthens no difference, so a server gains nothing by choosing it. None takes the first
        round's.

    Raises
    ------
    ProtocolError
        If the clipping norm changed where it must not, or further than it adapts; or the radius is
        none.
    """
    privacy = settings.privacy
    radius = start_radius(settings) if radius is None else radius
    if not (0 < radius <= 1 if checks_norms(settings) else radius == 0):
        raise ProtocolError(
            f"radius {radius} is none for robust.rule = {settings.robust.rule!r}",
            cure="take 0, or a number up to 1 where norms are checked",
        )
    agreed = privacy.clipping_norm
    if not privacy.adaptive and clipping_norm != agreed:
        raise ProtocolError(
            f"clipping norm {clipping_norm} is not the agreed {agreed}",
            cure="set privacy.adaptive = true, or use privacy.clipping_norm in every round",
        )
    if not within_range(clipping_norm, agreed):
        raise ProtocolError(
            f"clipping norm {clipping_norm} is not within a factor of {RANGE:g} of the agreed "
            f"{agreed}, where it adapts",
            cure="start a new run from another privacy.clipping_norm",
        )
    return ReleasePlan(
        unit=privacy.unit,
        dimension=dimension,
        clipping_norm=clipping_norm,
        expected_prompts=settings.grpo.prompts_per_step,
        noise_std=client_noise_std(privacy),
        metrics_share=privacy.metrics_share,
        indicator_share=_indicator_share(settings) if privacy.adaptive else 0.0,
        radius=radius,
        metrics=privacy.coordinates,
    )


def checks_norms(settings: Settings) -> bool:
    """Whether the rule holds vectors within a public ball."""
    return part_name(settings.robust.rule) == "norm_checked"


def is_single(settings: Settings) -> bool:
    """Whether the rule combines single clients' vectors, and not groups'."""
    return protocol_of(settings).group_size(settings) == 1


def start_radius(settings: Settings) -> float:
    """The first round's radius; 0 where norms are not checked."""
    return first_radius(_contributions(settings)) if checks_norms(settings) else 0.0


def following_radius(
    settings: Settings, plan: ReleasePlan, delta: NDArray[np.float64], clients: int
) -> float:
    """The next round's radius, from what this one released; 0 where norms are not checked.

    Parameters
    ----------
    settings, plan:
        Of the round.
    delta:
        float64, shape (d,): the released update in its own units.
    clients:
        In it.
    """
    if not checks_norms(settings):
        return 0.0
    privacy = settings.privacy
    prompts = plan.expected_prompts if plan.unit == "prompt" else 1
    noise = 0.0 if plan.unit == "none" else privacy.noise_multiplier / (prompts * clients)
    return next_radius(
        float(np.linalg.norm(delta)) * plan.update_scale,
        noise * math.sqrt(plan.dimension),
        _contributions(settings),
        plan.radius,
    )


def _contributions(settings: Settings) -> int:
    """Contributions that are averaged in each vector that the rule combines."""
    prompts = settings.grpo.prompts_per_step if settings.privacy.unit == "prompt" else 1
    # Updates of clients may all point one way, however many are averaged.
    return prompts * protocol_of(settings).group_size(settings) if prompts > 1 else 1


def plan_hash(settings: Settings, order: TrainOrder, plan: ReleasePlan, source: str) -> str:
    """SHA-256 (hex) of everything that decides a node's release. An equal hash is the same release.

    Flower's run id is not in it, which a resumed run changes, but the run's own name.

    Parameters
    ----------
    settings, order, plan:
        Of the round.
    source:
        What tells the node's prompts and declared figures from others, see
        :func:`fedgrpo.federation.node.gate.source_of`.
    """
    adapter = order.adapter
    parts = [
        settings.fingerprint(),
        [order.run, order.header.round],
        [adapter.vector_hash, adapter.basis_hash, adapter.layout],
        asdict(plan),
        source,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def order_digest(
    settings: Settings, adapter: AdapterState, clipping_norm: float, radius: float = 0.0
) -> bytes:
    """SHA-256 (32 bytes) of what every node of a round is ordered to compute on its own prompts.

    Clients whose releases are summed agree on it: it is in the roster of a bucket, from which masks
    are derived, and in what a dealer signs. A member of a committee vouches for no entry of the
    ledger that tells of another one than it followed.

    Adversary: a server that orders one client of a bucket to compute at another adapter, under
    another clip or by other settings, and so knows its part of the sum from the others'.
    """
    return ledger_order(
        settings.fingerprint(),
        adapter.layout,
        adapter.basis_hash,
        adapter.vector_hash,
        clipping_norm,
        radius,
    )


def norms_in(settings: Settings, clients: int) -> int:
    """Norms that these clients tell about in a round: their own, or those of their prompts."""
    prompts = settings.grpo.prompts_per_step if settings.privacy.unit == "prompt" else 1
    return clients * prompts


def _indicator_share(settings: Settings) -> float:
    """Share of the sensitivity for the clipping indicator: one draw of noise covers the bits of
    one client, or of the whole cohort where the server adds it.
    """
    privacy = settings.privacy
    clients = settings.federation.min_clients if privacy.noise == "server" else 1
    return indicator_share(norms_in(settings, clients), privacy.noise_multiplier)


def last_round(settings: Settings, wanted: int | None) -> int:
    """Return the last round to run; None wants all of ``settings.rounds``.

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
    return last
