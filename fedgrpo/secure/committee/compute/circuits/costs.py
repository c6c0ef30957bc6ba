"""What circuits cost, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.compute.circuits.adders import columns_of
from fedgrpo.secure.committee.compute.circuits.norms import most_products
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS
from fedgrpo.secure.committee.compute.engine import Cleartext
from fedgrpo.secure.committee.compute.planes import words_for
from fedgrpo.secure.committee.steps import MEMBERS, Member, Result

LINK_BYTES_PER_SECOND = 12.5e6
"""Rate of a member's link that the choice assumes: 100 Mbit/s."""
BITS_SENT = 1.5
"""Bits that each of four members sends for one AND."""
LARGEST_STEP_BYTES = 1 << 26
"""Bytes of the planes of one step, in each component; a member needs some 20 times that at once. Of
a circuit whose widest step takes more, coordinates are computed in portions, one after the other.
"""


@dataclass(frozen=True)
class Cost:
    """What a circuit takes."""

    conjunctions: int
    """ANDs for each coordinate."""
    steps: int
    """Messages that wait for each other."""
    widest: int
    """Planes of the widest step, which decides how much memory a member needs."""

    def portions(self, dimension: int) -> int:
        """Portions of coordinates, so that no step is larger than :data:`LARGEST_STEP_BYTES`."""
        return portions_of(self.widest, dimension)

    def seconds(self, dimension: int, latency_seconds: float) -> float:
        """Estimate the time on the wire of one round, for a one-way latency in seconds."""
        sent = BITS_SENT * self.conjunctions * words_for(dimension) * 8
        steps = self.steps * self.portions(dimension)
        return steps * latency_seconds + sent / LINK_BYTES_PER_SECOND


def portions_of(planes: int, dimension: int) -> int:
    """Portions in which a step of so many planes fits the memory, at most one a word."""
    words = words_for(dimension)
    return min(words, -(-8 * words * planes // LARGEST_STEP_BYTES)) or 1


@cache
def cost(circuit: str, values: int, trim: int, bits: int = 16, noise_bits: int = 22) -> Cost:
    """Count what a circuit takes, by running it on no coordinates at all.

    Parameters
    ----------
    circuit:
        A name in :data:`CIRCUITS`.
    values, trim, bits:
        Values in each coordinate, how many are trimmed at either end, and their width.
    noise_bits:
        Width of the sum and of the four shares of noise in it; 0 for a sum without noise.
    """
    engine, chosen = Cleartext(), CIRCUITS[circuit]
    kept = finish(chosen.keep(engine, np.zeros((1, values, bits, 0), np.uint64), trim))
    noise = [np.zeros((1, noise_bits, 0), np.uint64)] * (MEMBERS if noise_bits else 0)
    width = noise_bits or bits + values.bit_length()
    finish(chosen.add(engine, columns_of([*kept, *noise], width)))
    return Cost(engine.conjunctions, engine.steps, engine.widest)


def choose_circuit(
    values: int, trim: int, dimension: int, latency_seconds: float, bits: int = 16
) -> str:
    """Choose the circuit with the least estimated time on the wire.

    ``ripple`` sends least and waits most, ``pairwise`` the other way round, ``log`` is between.
    One that needs more memory is computed in more portions, and so waits more often.

    Parameters
    ----------
    values, trim, dimension, bits:
        As in the round's :class:`~fedgrpo.secure.committee.compute.circuits.plan.Plan`.
    latency_seconds:
        Time from sending a message until it arrives: some 1e-3 in one building, 0.05 across a
        continent, 5 where messages are polled for.
    """
    costs = {name: cost(name, values, trim, bits) for name in CIRCUITS}
    return min(costs, key=lambda name: costs[name].seconds(dimension, latency_seconds))


def widest_step(plan: Plan) -> int:
    """Planes of the widest step of a plan, which decides in how many portions it is computed."""
    widest = cost(plan.circuit, plan.groups, plan.trimmed, plan.bits).widest
    if plan.rule == "norm_checked_mean":
        widest = max(widest, most_products(plan))
    return widest if plan.bucket == 1 else max(widest, plan.clients * plan.bits)


def finish(work: Member[Result]) -> Result:
    """Run a circuit under :class:`~fedgrpo.secure.committee.compute.engine.Cleartext`, which sends
    nothing; raises ProtocolError if it wants to send something after all.
    """
    try:
        next(work)
    except StopIteration as done:
        result: Result = done.value
        return result
    raise ProtocolError("a circuit in the clear sent a message", cure="run it with all members")
