"""Where simulated clients misbehave. A deployed node, which has no partition, never does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.attacks import apply_attack
from fedgrpo.attacks.blind import MALFORMED
from fedgrpo.attacks.faults import Faults, faults_of
from fedgrpo.attacks.knowledge import Insight, Knowledge
from fedgrpo.ground.parts.names import part_name
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings


def simulated_faults(
    settings: Settings,
    node_config: Mapping[str, Scalar],
    round: int,
) -> Faults:
    """Look up what this node does wrong: nothing, unless it is simulated and told to."""
    simulation = settings.simulation
    if not {"partition-id", "num-partitions"} <= set(node_config) or not simulation.faulty:
        return Faults(byzantine=False, drops=False)
    return faults_of(simulation, int(node_config["partition-id"]), round, settings.seed)


_HONEST: dict[bytes, dict[int, NDArray[np.float64]]] = {}
"""Of one round's order, what its attackers in this process would have sent honestly, by client."""


def honest_vectors(
    order: bytes, node_config: Mapping[str, Scalar], release: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """What the attackers of this process know of each other in a round, this one's own included.

    Parameters
    ----------
    order:
        Digest that tells the round's order from all others.
    node_config:
        The attacker's.
    release:
        Its honest release.
    """
    if order not in _HONEST:
        _HONEST.clear()
    known = _HONEST.setdefault(order, {})
    known[int(node_config["partition-id"])] = release
    return tuple(known[client] for client in sorted(known))


def knowledge(
    settings: Settings,
    plan: ReleasePlan,
    round: int,
    told: Insight,
    *,
    first: NDArray[np.float64] | None,
    step: NDArray[np.float64] | None,
    way: NDArray[np.float64],
) -> Knowledge:
    """Put together what an attacker knows: see :class:`fedgrpo.attacks.Knowledge`."""
    simulation, robust = settings.simulation, settings.robust
    return Knowledge(
        boost=simulation.boost,
        round=round,
        update=plan.dimension,
        own=told.own,
        honest=told.honest if len(told.honest) else None,
        first=first,
        step=step,
        way=way,
        last=told.last,
        clients=simulation.clients,
        attackers=simulation.byzantine,
        rule=robust.rule,
        trim=robust.trim,
        seed=settings.seed,
        radius=plan.radius,
    )


def attack(
    settings: Settings, release: NDArray[np.float64], bound: float, known: Knowledge
) -> NDArray[np.float64]:
    """Replace a release by what the attacker sends.

    Parameters
    ----------
    settings:
        Name the attack.
    release:
        float64, shape (size,): the honest release.
    bound:
        Largest value that the encoding carries. What is no number becomes this, unless the attack
        is to have it refused: another would not waste its place in the round on a vector that its
        own node does not encode.
    known:
        What the attacker knows.
    """
    sent = apply_attack(name := settings.simulation.attack, release, known)
    if part_name(name) in MALFORMED:
        return sent
    return np.nan_to_num(sent, nan=bound, posinf=bound, neginf=-bound)


def way(adapter: AdapterState, earlier: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """How far the global adapter has come since an earlier round, padded to a whole release.

    Parameters
    ----------
    adapter:
        The round's global adapter.
    earlier:
        float32, shape (d,): trainable values as the attacker remembers them.
    size:
        Of a release.
    """
    gone = np.zeros(size)
    gone[: earlier.size] = adapter.vector.astype(np.float64) - earlier
    return gone
