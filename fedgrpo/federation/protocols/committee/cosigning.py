"""Members vouch for the server's ledger, round by round.

Adversary: a server that shows two ledgers of one run, takes entries back, or enters another adapter
than it ordered a member to compute at; see :mod:`fedgrpo.ledger.witness`. A member that is away
vouches later; none can hold a run up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import Context, RecordDict

from fedgrpo.federation.protocols.committee.convening.identity import member_identity
from fedgrpo.federation.protocols.committee.convening.messages import (
    COSIGN,
    Growth,
    Vouched,
)
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.state.node_store import NodeStore
from fedgrpo.federation.wire.codec import Header, decode, encode
from fedgrpo.federation.wire.link import Link
from fedgrpo.ledger import Cosignature, Expected, Ledger, Signed, Witness
from fedgrpo.settings import Settings

LOG = logging.getLogger(__name__)


def vouch(content: RecordDict, context: Context, settings: Settings) -> RecordDict:
    """Sign the ledger as a member, if it extends what this one has signed.

    Raises
    ------
    LedgerError
        If it does not.
    ProtocolError
        If this node is no member.
    """
    growth, memory = decode(Growth, content), NodeMemory(context.state)
    store = NodeStore.of(context, settings)
    identity, name = member_identity(context, store), f"witness-{memory.run}"
    expected = Expected(memory.run, settings.fingerprint(), memory.round, memory.order)
    witness = Witness(expected, store.read_note(Signed, name))
    header = Header(context.run_id, memory.round)
    if growth.start > witness.size:
        return encode(header, Vouched(witness.size, ""))
    witness.take(growth.start, growth.lines)
    store.write_note(name, witness.signed)
    signature = witness.sign(identity.signing).signature
    return encode(header, Vouched(witness.size, signature))


@dataclass
class Cosigning:
    """The server's side of it."""

    ledger: Ledger
    seen: dict[str, int] = field(default_factory=dict)
    """Entries that each member, by its key, has signed, as far as known."""

    def collect(self, link: Link, seats: Mapping[int, str]) -> frozenset[int]:
        """Ask members to vouch for all entries so far, and keep their signatures.

        Parameters
        ----------
        link:
            To the nodes of the last round.
        seats:
            Signing keys (hex) by node. Members that have computed no round yet are not asked:
            nobody could tell that they are members.

        Returns
        -------
        frozenset[int]
            Nodes that did not answer.
        """
        asked = {node: key for node, key in seats.items() if key in self.ledger.members}
        silent = frozenset[int]()
        # Twice, as a member first has to say how far it has come.
        for _ in range(2):
            asked, lost = self._ask(link, asked)
            silent |= lost
        return silent

    def _ask(self, link: Link, asked: Mapping[int, str]) -> tuple[dict[int, str], frozenset[int]]:
        """Ask once; returns whom to ask again, and who did not answer."""
        if not asked:
            return {}, frozenset()
        now, lines = self.ledger.checkpoint, self.ledger.lines()
        contents = {}
        for node, key in asked.items():
            start = self.seen.get(key, self.ledger.size)
            contents[node] = encode(link.header, Growth(start, tuple(lines[start:])))
        answers = link.ask(COSIGN, contents, lambda _, content: decode(Vouched, content))
        for node, reason in answers.failures.items():
            told = f"member {asked[node][:12]} does not vouch for the ledger: {reason}"
            LOG.warning(told, extra={"code": "member-unsigned"})
        again = {}
        for node, vouched in answers.values.items():
            key = asked[node]
            cosignature = Cosignature(now, key, vouched.signature)
            if cosignature.holds:
                self.ledger.keep(cosignature)
                self.seen[key] = now.size
            elif vouched.size < now.size:
                self.seen[key] = max(vouched.size, 0)
                again[node] = key
        return again, answers.lost
