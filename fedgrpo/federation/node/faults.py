"""Where simulated clients misbehave. A deployed node, which has no partition, never does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.attacks import apply_attack
from fedgrpo.attacks.faults import Faults, faults_of
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Scalar, Settings


def simulated_faults(
    settings: Settings,
    node_config: Mapping[str, Scalar],
    round: int,
) -> Faults:
    """Look up what this node does wrong: nothing, unless it is simulated and told to."""
    simulation = settings.simulation
    if not {"partition-id", "num-partitions"} <= set(node_config) or not (
        simulation.byzantine or simulation.droppers
    ):
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


def attack(
    settings: Settings,
    release: NDArray[np.float64],
    bound: float,
    adapter: AdapterState,
    previous: NDArray[np.float32] | None,
    round: int,
    honest: Sequence[NDArray[np.float64]] = (),
) -> NDArray[np.float64]:
    """Replace a release by what the attacker sends.

    Parameters
    ----------
    settings:
        Name the attack and its boost.
    release:
        float64, shape (size,): the honest release.
    bound:
        Largest value that the encoding carries. What is no number becomes this: an attacker would
        not waste its place in the round on a vector that its own node refuses to encode.
    adapter:
        The round's global adapter, from which the attacker learns the last step.
    previous:
        Trainable values of the round before, as the attacker remembers them.
    round:
        Round number, from 1.
    honest:
        See :func:`honest_vectors`.
    """
    simulation = settings.simulation
    sent = apply_attack(
        simulation.attack,
        release,
        boost=simulation.boost,
        previous=_last_step(adapter, previous, release.size),
        round=round,
        honest=honest,
    )
    return np.nan_to_num(sent, nan=bound, posinf=bound, neginf=-bound)


def _last_step(
    adapter: AdapterState, previous: NDArray[np.float32] | None, size: int
) -> NDArray[np.float64] | None:
    """The last global step, padded to a whole release; None in the attacker's first round."""
    if previous is None:
        return None
    step = np.zeros(size)
    step[: previous.size] = adapter.vector.astype(np.float64) - previous
    return step
