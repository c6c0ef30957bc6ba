"""Who is summed with whom."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.ground.crypto import new_key, shuffled
from fedgrpo.ground.errors import CohortError, ProtocolError


def assign_buckets(
    participants: Sequence[int], size: int, key: bytes | None = None
) -> list[tuple[int, ...]]:
    """Split a round's participants at random into as many buckets as possible.

    The order is a pseudorandom permutation under a secret key, so an attacker cannot choose its
    bucket peers. The server can: a client has only the server's word for the draw, and an active
    server may surround a victim with its own nodes.

    Parameters
    ----------
    participants:
        Distinct node ids. In the same order, they are drawn into the same places by the same key.
    size:
        Least members of a bucket, at least 2.
    key:
        32 secret bytes that serve this one draw. None takes fresh ones of the operating system.

    Returns
    -------
    list[tuple[int, ...]]
        ``len(participants) // size`` buckets, each sorted, whose sizes differ by at most one. Every
        participant is in exactly one.

    Raises
    ------
    CohortError
        If there are fewer than ``size`` participants.
    ProtocolError
        If ``size`` is below 2 or an id occurs twice.
    """
    if size < 2:
        raise ProtocolError(
            f"a bucket of {size} hides nobody", cure="set secure.bucket_size to at least 3"
        )
    if len(set(participants)) != len(participants):
        raise ProtocolError(
            "a participant is named twice",
            cure="count each node's reply once before filling buckets",
        )
    if len(participants) < size:
        raise CohortError(
            f"{len(participants)} participants do not fill one bucket of {size}",
            cure=f"wait for at least {size} clients, or lower secure.bucket_size (never below 3)",
        )
    order = shuffled(participants, new_key() if key is None else key)
    count = len(order) // size
    return [tuple(sorted(order[first::count])) for first in range(count)]
