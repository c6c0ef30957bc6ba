"""The members agree on whose shares are in the round, whatever one of them and the clients do."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedgrpo.ground.crypto import KEY_BYTES
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.keys.identity import keepers
from fedgrpo.secure.committee.sharing.dealing import (
    STATEMENT_BYTES,
    Share,
    Words,
    cut,
    is_opening,
    open_share,
    statement_digest,
)
from fedgrpo.secure.committee.steps import MEMBERS, Member, Step

_NOTHING = bytes(KEY_BYTES)
"""What a member announces of a client that dealt it nothing usable."""


@dataclass(frozen=True)
class Admitted:
    """What one member holds once the clients are agreed on."""

    clients: tuple[int, ...]
    """Clients of whom all members now hold shares, ascending; the same at all members."""
    dropped: tuple[int, ...]
    """Clients left out of the round, ascending; the same at all members."""
    digest: bytes
    """SHA-256 over what each client that was taken signed, 32 bytes; the same at all members. Equal
    digests mean equal components: the salted hashes of all four are in what is signed."""
    components: Mapping[int, Words] = field(repr=False)
    """``{component: uint64, shape (clients, words)}``, for the member's three components."""


def admit(
    index: int,
    agreement: bytes,
    session: bytes,
    clients: Mapping[int, bytes],
    messages: Mapping[int, bytes],
    words: int,
) -> Member[Admitted]:
    """Play one member's part in agreeing on whose shares are in the round.

    Two steps, and a third if somebody lied or a message was lost: all *announce* for each client
    the hash of the signed statement that fits the three components they got; all *echo* what they
    were announced, and the majority of three reports is taken for what a member announced; a client
    is in if at least three members announced the same statement; a member that did not is *sent*
    its components by those that did, and checks them against the statement's hashes.

    Adversary: one member is malicious and colludes with any number of clients and with whoever
    carries the clients' messages. Then the three honest members

    * take the same clients, with the same components. Announce and echo is Byzantine broadcast for
      four parties of which one lies (Lamport, Shostak, Pease 1982, doi 10.1145/357172.357176,
      OM(1)): if the announcer is honest, two of the three reports about it are true; if it is the
      liar, all reporters are honest and everybody counts the same three reports. The rest is a
      function of what was agreed, and the hashes allow one value for each component;
    * take every client that dealt properly to all of them: three announcements are there, whatever
      the fourth member says. It cannot accuse a client out of the round, or end the round with it;
    * all hold their components of every client taken: at least two honest members announced it, any
      two hold all four components between them, and each sends what both it and the receiver may
      hold;
    * tell the fourth nothing new: component m is sent to keepers of m only.

    Hence a malicious client alone can only drop itself. Whether a client is in whose message to one
    honest member was lost is up to the malicious member, but it is so for all alike.

    Parameters
    ----------
    index:
        The member, 0 to 3.
    agreement:
        Its X25519 private key, 32 bytes.
    session:
        :meth:`Committee.session` of this round, made with a hash of ``clients`` among ``public``.
    clients:
        The round's roster, the same at all members: ``{client: Ed25519 public key}``.
    messages:
        ``{client: its message to this member}``, as far as they came in time.
    words:
        Length of a payload.

    Raises
    ------
    ProtocolError
        If nobody sends the components of a client that was taken: more than one member lies.
    """
    roster = tuple(sorted(clients))
    peers = keepers(index)
    shares = {}
    for client in roster:
        message = messages.get(client, b"")
        share = open_share(index, agreement, session, client, clients[client], message, words)
        if share:
            shares[client] = share
    own = b"".join(
        statement_digest(session, client, shares[client].statement)
        if client in shares
        else _NOTHING
        for client in roster
    )
    announced = yield Step(dict.fromkeys(peers, own), frozenset(peers))
    direct = {peer: _exactly(announced[peer], len(own)) for peer in peers}
    echo = b"".join(direct[peer] for peer in peers)
    echoed = yield Step(dict.fromkeys(peers, echo), frozenset(peers))
    ballot = _Ballot(session, roster, words, _announcements(index, own, direct, echoed))
    outgoing = {
        peer: ballot.repair(index, peer, shares) for peer in peers if ballot.helps(index, peer)
    }
    helpers = frozenset(peer for peer in peers if ballot.helps(peer, index))
    if outgoing or helpers:
        received = yield Step(outgoing, helpers)
        for client in ballot.lacking(index):
            shares[client] = ballot.repaired(index, client, received)
    return Admitted(
        clients=tuple(ballot.taken),
        dropped=tuple(client for client in roster if client not in ballot.taken),
        digest=hashlib.sha256(session + b"".join(ballot.taken.values())).digest(),
        components={
            m: np.array(
                [shares[client].component(m) for client in ballot.taken], np.uint64
            ).reshape(len(ballot.taken), words)
            for m in keepers(index)
        },
    )


class _Ballot:
    """What the members agreed on, and who sends whose components to whom because of it."""

    def __init__(
        self,
        session: bytes,
        roster: tuple[int, ...],
        words: int,
        announced: Mapping[int, list[bytes]],
    ) -> None:
        self._session = session
        self._opening_bytes = KEY_BYTES + 8 * words
        self._by_client = {
            client: {member: digests[place] for member, digests in announced.items()}
            for place, client in enumerate(roster)
        }
        self.taken: dict[int, bytes] = {}
        """Clients taken, ascending, and the digest of what each stated."""
        for client, digests in self._by_client.items():
            statement, count = Counter(digests.values()).most_common(1)[0]
            if statement != _NOTHING and count >= len(digests) - 1:
                self.taken[client] = statement

    def lacking(self, member: int) -> list[int]:
        """Clients taken whose components the member is to be sent, ascending."""
        return [client for client in self.taken if not self._has(member, client)]

    def helps(self, sender: int, receiver: int) -> bool:
        """Whether ``sender`` has anything that ``receiver`` lacks; nobody waits for others."""
        return any(self._has(sender, client) for client in self.lacking(receiver))

    def repair(self, sender: int, receiver: int, shares: Mapping[int, Share]) -> bytes:
        """Everything that ``sender`` has for ``receiver``, both members being entitled to it."""
        return b"".join(
            shares[client].statement
            + b"".join(shares[client].openings[m] for m in _common(sender, receiver))
            for client in self.lacking(receiver)
            if self._has(sender, client)
        )

    def repaired(self, receiver: int, client: int, received: Mapping[int, bytes]) -> Share:
        """Find a client's statement and openings in what the others sent."""
        statement, openings = b"", dict[int, bytes]()
        for sender, message in received.items():
            common = _common(sender, receiver)
            record = self._record(sender, receiver, client, message)
            if statement_digest(self._session, client, record[0]) != self.taken[client]:
                continue
            statement = record[0]
            for m, opening in zip(common, record[1:], strict=True):
                if is_opening(self._session, client, statement, m, opening):
                    openings[m] = opening
        if set(openings) != set(keepers(receiver)):
            raise ProtocolError(
                f"committee member {receiver} was sent no valid share of client {client}, which "
                "at least two other members have",
                cure="stop using this committee: more than one member is malicious",
            )
        return Share(statement, openings)

    def _record(self, sender: int, receiver: int, client: int, message: bytes) -> list[bytes]:
        """Cut out what the sender sent of a client: its statement, then openings; maybe empty."""
        lengths = [STATEMENT_BYTES] + [self._opening_bytes] * len(_common(sender, receiver))
        sent = [c for c in self.lacking(receiver) if self._has(sender, c)]
        start = sent.index(client) * sum(lengths) if client in sent else len(message)
        return cut(message[start:], lengths)

    def _has(self, member: int, client: int) -> bool:
        return self._by_client[client][member] == self.taken[client]


def _common(one: int, other: int) -> list[int]:
    return [m for m in range(MEMBERS) if m not in (one, other)]


def _announcements(
    index: int, own: bytes, direct: Mapping[int, bytes], echoed: Mapping[int, bytes]
) -> dict[int, list[bytes]]:
    """For each member the digests that it is taken, by all honest members, to have announced."""
    reports = {peer: [vector] for peer, vector in direct.items()}
    for reporter in direct:
        others = sorted({index, *direct} - {reporter})
        vectors = _exactly(echoed[reporter], len(own) * len(others))
        for place, member in enumerate(others):
            if member != index:
                reports[member].append(vectors[place * len(own) :][: len(own)])
    agreed = {
        peer: [_majority(entries) for entries in zip(*map(_entries, vectors), strict=True)]
        for peer, vectors in reports.items()
    }
    return agreed | {index: list(_entries(own))}


def _majority(reports: tuple[bytes, ...]) -> bytes:
    value, count = Counter(reports).most_common(1)[0]
    return value if count >= 2 else _NOTHING


def _entries(vector: bytes) -> Iterator[bytes]:
    return (vector[at : at + KEY_BYTES] for at in range(0, len(vector), KEY_BYTES))


def _exactly(message: bytes, length: int) -> bytes:
    """Take a message of a wrong length for one that says nothing: it may not end the round."""
    return message if len(message) == length else bytes(length)
