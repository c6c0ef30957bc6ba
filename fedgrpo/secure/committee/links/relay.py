"""Links through an untrusted relay, and members that live from one message to the next.

For members without a port that the others can reach: the server of the federation passes their
messages on, sealed end to end. A deployed node starts a fresh process for every message, so a
member is stored as what it was made from and what it has heard, and rebuilt by hearing it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from fedgrpo.ground.crypto import agree
from fedgrpo.ground.crypto import seal as encrypt
from fedgrpo.ground.crypto import unseal as decrypt
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.keys.identity import context
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.steps import Member, Step

Result = TypeVar("Result")


def seal(party: Party, receiver: int, number: int, message: bytes) -> bytes:
    """Seal one member's message for one other member; 28 bytes longer than the message.

    Adversary: the relay, and everybody else but the two members. It learns lengths, times, and who
    writes to whom; it cannot read or alter a message, hold it over to another round or committee,
    return it to its sender, or change the order, without :func:`open_sealed` refusing it. It can
    lose messages, which ends the round.

    The AES-256-GCM key is agreed between the two members' long-term X25519 keys, for this session
    and direction, so there is no forward secrecy: who records what passes and obtains a member's
    private key later reads it. Direct links have it. Raises ProtocolError if the receiver's public
    key has low order.

    Parameters
    ----------
    receiver:
        Number of the receiving member.
    number:
        Messages that the sender has sealed for this receiver before, in this session.
    """
    name = _name(party.session, party.index, receiver, number)
    return encrypt(_key(party, receiver, party.index, receiver), message, name)


def open_sealed(party: Party, sender: int, number: int, sealed: bytes) -> bytes:
    """Open the ``number``-th message that ``sender`` sealed for this member.

    Adversary: as for :func:`seal`. Raises ProtocolError if it is anything but that message.
    """
    name = _name(party.session, sender, party.index, number)
    message = decrypt(_key(party, sender, sender, party.index), sealed, name)
    if message is None:
        raise ProtocolError(
            f"what came as message {number} from committee member {sender} to member "
            f"{party.index} ({len(sealed)} bytes) is not that message: it was altered, cut short, "
            "replayed, or sealed with another key, in another round or with other settings",
            cure=f"compare keys and settings with member {sender}, then start the round again",
        )
    return message


class ReplayableMember(Generic[Result]):
    """A member that can be put away after every message and rebuilt in another process.

    Hand :meth:`begin` and then whatever arrives to :meth:`deliver`; both return what to pass on.
    Put every delivery away *before* what it returned leaves the node: another one of the same party
    and ``start``, begun and given the same deliveries in their order, is the same member. One that
    forgot some would answer twice, to messages that differ if another member is malicious; and what
    a round must never do is open twice.

    Rebuilding repeats the work of all steps so far: of no account beside the seconds that a relayed
    step takes, as long as vectors are short.

    Parameters
    ----------
    party:
        The member and its session.
    start:
        Makes the generator, every time the same one: it draws nothing at random.
    """

    def __init__(self, party: Party, start: Callable[[], Member[Result]]) -> None:
        self._party = party
        self._member = start()
        self._inbox: dict[int, list[bytes]] = {peer: [] for peer in party.peers}
        self._opened = dict.fromkeys(party.peers, 0)
        self._sealed = dict.fromkeys(party.peers, 0)
        self._step: Step | None = None
        self._result: list[Result] = []

    @property
    def done(self) -> bool:
        """Whether the member has its result."""
        return bool(self._result)

    @property
    def result(self) -> Result:
        """What the member computed; raises ProtocolError if it still waits for messages."""
        if not self._result:
            raise self._refusal("has no result yet", f"deliver messages from {self.missing}")
        return self._result[0]

    @property
    def missing(self) -> list[int]:
        """Members whose next message is waited for, ascending."""
        expected = self._step.expect if self._step else frozenset()
        return sorted(peer for peer in expected if not self._inbox[peer])

    def begin(self) -> dict[int, list[bytes]]:
        """Start, and return the first sealed messages: ``{receiver: in order}``. Raises
        ProtocolError if it has begun before.
        """
        if self._step or self._result:
            raise self._refusal("has begun already", "deliver messages to it")
        return self._seal_all(self._advance())

    def deliver(self, sealed: Mapping[int, Sequence[bytes]]) -> dict[int, list[bytes]]:
        """Take sealed messages, ``{sender: in order}``, go on, and return what to send.

        Nothing is taken in unless all of it can be opened. Raises ProtocolError if a message is not
        the next one of its sender, the sender takes no part, the member has not begun or is done,
        or its protocol refuses what it hears.
        """
        if self._step is None:
            raise self._refusal("waits for no message", "begin first; ask no more once it is done")
        if strangers := set(sealed) - self._party.peers:
            raise self._refusal(f"got a message from {strangers}", "pass on members' messages only")
        opened = [
            (peer, open_sealed(self._party, peer, self._opened[peer] + place, message))
            for peer, messages in sorted(sealed.items())
            for place, message in enumerate(messages)
        ]
        return self._seal_all(self._hear(opened))

    def abandon(self, error: ProtocolError) -> ProtocolError:
        """End the member because of an error outside of it, and return the error to report.

        Parameters
        ----------
        error:
            What went wrong: a message that :meth:`deliver` refused, or a
            :class:`~fedgrpo.ground.errors.MemberLostError` where one did not come in time.

        Returns
        -------
        ProtocolError
            The same, or an :class:`~fedgrpo.ground.errors.OpenedError` if the member's part of the
            result is out already and the round counts as released.
        """
        if self._step is None:
            return error
        self._step = None
        try:
            self._member.throw(error)
        except ProtocolError as reported:
            return reported
        raise self._refusal("went on after an error", "update it: its version is not this one")

    def _hear(self, messages: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Take messages in, go on as far as they reach, and return what to send."""
        for peer, message in messages:
            self._inbox[peer].append(message)
            self._opened[peer] += 1
        outgoing = []
        while self._step and not self.missing:
            received = {peer: self._inbox[peer].pop(0) for peer in sorted(self._step.expect)}
            outgoing += self._advance(received)
        return outgoing

    def _advance(self, received: Mapping[int, bytes] | None = None) -> list[tuple[int, bytes]]:
        try:
            self._step = next(self._member) if received is None else self._member.send(received)
        except StopIteration as end:
            self._step = None
            self._result.append(end.value)
            return []
        return sorted(self._step.outgoing.items())

    def _seal_all(self, outgoing: Sequence[tuple[int, bytes]]) -> dict[int, list[bytes]]:
        sealed: dict[int, list[bytes]] = {}
        for peer, message in outgoing:
            sealed.setdefault(peer, []).append(seal(self._party, peer, self._sealed[peer], message))
            self._sealed[peer] += 1
        return sealed

    def _refusal(self, problem: str, cure: str) -> ProtocolError:
        return ProtocolError(f"relayed committee member {self._party.index} {problem}", cure=cure)


def _key(party: Party, peer: int, sender: int, receiver: int) -> bytes:
    public = party.committee.members[peer].agreement
    name = context(party.session, "relay", sender, receiver)
    return agree(party.identity.agreement, public, name)


def _name(session: bytes, sender: int, receiver: int, number: int) -> bytes:
    return context(session, "relayed message", sender, receiver, number)
