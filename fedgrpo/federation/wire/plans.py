"""What a round's releases look like, worked out alike by server and nodes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from fedgrpo.federation.wire.messages import TrainOrder
from fedgrpo.ground.errors import ProtocolError, SettingsError
from fedgrpo.ledger.entries import order_digest as ledger_order
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.adaptive import RANGE, indicator_share, within_range
from fedgrpo.privacy.release import ReleasePlan, client_noise_std
from fedgrpo.settings import Settings


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
        If the clipping norm changed where it must not, or further than it adapts.
    """
    privacy = settings.privacy
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
    )


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


def order_digest(settings: Settings, adapter: AdapterState, clipping_norm: float) -> bytes:
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
