"""Which of the clients that are online a round asks."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.ground.crypto import derive_key


def drawn(nodes: Sequence[int], size: int, secret: bytes, run: str, number: int) -> tuple[int, ...]:
    """Draw ``size`` of these nodes, or all where ``size`` is 0 or there are no more, sorted.

    Uniform for whoever does not hold the secret, and anew in each round. Each node has a rank of
    its own: a round that is repeated with some nodes more or less asks the others again, of whom
    each keeps its release, instead of charging new ones. (Flower gives the nodes of a simulation
    other ids when it is resumed: other clients are drawn then.)

    Parameters
    ----------
    secret:
        The server's, 32 bytes.
    run, number:
        Name of the run; round.
    """
    if not size or len(nodes) <= size:
        return tuple(nodes)
    ranked = sorted(nodes, key=lambda node: derive_key(secret, "cohort", run, number, node))
    return tuple(sorted(ranked[:size]))
