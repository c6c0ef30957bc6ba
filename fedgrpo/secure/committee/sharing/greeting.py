"""Before and after the computation: that all mean the same round, and that all are content."""

from __future__ import annotations

import hashlib

from fedgrpo.ground.crypto import KEY_BYTES, derive
from fedgrpo.ground.errors import MemberLostError
from fedgrpo.secure.committee.compute.inbox import Inbox, suspicion
from fedgrpo.secure.committee.keys.identity import ComponentKeys, context, keepers
from fedgrpo.secure.committee.steps import MEMBERS, Member, Step


def greet(
    index: int,
    keys: ComponentKeys,
    session: bytes,
    coin_keys: ComponentKeys,
    inputs: bytes,
) -> Member[bytes]:
    """Compare settings and keys with each peer, and toss a joint coin; one step.

    Each member proves to each other that it holds the keys that both should hold, and tells it the
    coin of the key that it lacks.

    Adversary: one member is malicious. Coins are functions of keys tossed at the start of the run
    and of the inputs, so it chooses none, and a wrong one does not fit what the other two say. It
    lacks one of the four until the members greet, by which time all inputs are dealt. On the same
    inputs the coin is the same in every session, as the noise is: otherwise two attempts could open
    two results that differ by no noise. Raises ProtocolError if a member has another session or
    another key, or says another coin.

    Parameters
    ----------
    index:
        As for :func:`~fedgrpo.secure.committee.round.aggregate`.
    keys, session:
        The session, bound to all that members must agree on, and its keys.
    coin_keys, inputs:
        What the coin is tossed for, and the keys of that.

    Returns
    -------
    bytes
        The coin, 32 bytes, the same at all members.
    """
    peers = keepers(index)
    digest = hashlib.sha256(context(session, "greeting")).digest()

    def proof(m: int, sender: int, receiver: int) -> bytes:
        return derive(keys.keys[m], context(session, "proof of key", m, sender, receiver))

    def coin(m: int) -> bytes:
        return derive(coin_keys.keys[m], context(inputs, "coin", m))

    def greeting(sender: int, receiver: int) -> list[bytes]:
        common = [m for m in range(MEMBERS) if m not in (sender, receiver)]
        return [digest, *(proof(m, sender, receiver) for m in common)]

    outgoing = {peer: b"".join([*greeting(index, peer), coin(peer)]) for peer in peers}
    inbox = Inbox((yield Step(outgoing, frozenset(peers))))
    told = {}
    for peer in peers:
        expected = greeting(peer, index)
        if inbox.take(peer, KEY_BYTES) != expected[0]:
            raise suspicion(peer, "it has another round, other settings or another plan")
        if any(inbox.take(peer, KEY_BYTES) != proof for proof in expected[1:]):
            raise suspicion(peer, "it holds another component key")
        told[peer] = inbox.take(peer, KEY_BYTES)
    inbox.close()
    if len(set(told.values())) != 1:
        raise suspicion(_odd_one_out(told), "its coin is not the one of the others")
    coins = {m: coin(m) for m in keepers(index)} | {index: told[peers[0]]}
    return hashlib.sha256(b"".join(coins[m] for m in range(MEMBERS))).digest()


def confirm(index: int, session: bytes) -> Member[None]:
    """Tell each peer that nothing was found wrong, and hear the same from all; one step.

    Raises
    ------
    ProtocolError
        If a member says anything else.
    MemberLostError
        If one is lost, and with it the knowledge of whether it opened: marked ``confirmed``.
    """
    peers = keepers(index)

    def word(sender: int, receiver: int) -> bytes:
        return hashlib.sha256(context(session, "content", sender, receiver)).digest()

    outgoing = {peer: word(index, peer) for peer in peers}
    try:
        inbox = Inbox((yield Step(outgoing, frozenset(peers))))
    except MemberLostError as error:
        error.confirmed = True
        raise
    for peer in peers:
        if inbox.take(peer, KEY_BYTES) != word(peer, index):
            raise suspicion(peer, "it does not confirm the round")
    inbox.close()


def _odd_one_out(told: dict[int, bytes]) -> int:
    words = list(told.values())
    return min(told, key=lambda peer: words.count(told[peer]))
