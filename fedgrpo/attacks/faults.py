"""Which simulated client attacks, and which drops out of which round."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import SimulationSettings


@dataclass(frozen=True)
class Faults:
    """What goes wrong with one client in one round."""

    byzantine: bool
    """It sends what the attack says."""
    drops: bool
    """It does not answer."""
    late: bool = False
    """It trains, and is charged for it, but answers when nobody waits any more."""


def faults_of(
    simulation: SimulationSettings,
    partition: int,
    round: int,
    seed: int,
) -> Faults:
    """Decide a client's faults in a round.

    The first ``byzantine`` clients attack in every round and never drop out. Counted from the last:
    ``droppers``, then ``stragglers``, then ``newcomers``. Each of the first two drops out of, or is
    late in, each round with probability ``dropout``, by a hash of seed, client and round: the same
    in every process, in whatever order they ask, and after a resume. Newcomers are away until round
    ``newcomers_from``.

    Parameters
    ----------
    simulation:
        How many clients have which fault.
    partition:
        The client's index, from 0.
    round:
        Current round, from 1.
    seed:
        The run's public seed.

    Raises
    ------
    SettingsError
        If there is no such client.
    """
    if not 0 <= partition < simulation.clients:
        raise SettingsError(
            f"partition {partition} is none of the {simulation.clients} simulated clients",
            cure="set simulation.clients to the number of virtual nodes",
        )
    if partition < simulation.byzantine:
        return Faults(byzantine=True, drops=False)
    place = simulation.clients - 1 - partition
    stragglers_end = simulation.droppers + simulation.stragglers
    is_dropper, is_slow = place < simulation.droppers, place < stragglers_end
    is_new = not is_slow and place < stragglers_end + simulation.newcomers
    fails = is_slow and _coin(seed, partition, round) < simulation.dropout
    away = is_new and round < simulation.newcomers_from
    return Faults(
        byzantine=False, drops=away or (fails and is_dropper), late=fails and not is_dropper
    )


def _coin(*numbers: int) -> float:
    """Return a uniform number in [0, 1) with 53 bits, a pure function of the arguments."""
    # Not Python's hash(), which is salted by process.
    message = b"fedgrpo dropout\0" + b",".join(b"%d" % number for number in numbers)
    (word,) = struct.unpack_from("<Q", hashlib.sha256(message).digest())
    return float((word >> 11) / 2**53)
