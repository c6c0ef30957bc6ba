"""Boolean circuits among the three members that are left when one has crashed.

Replicated secret sharing after Araki, Furukawa, Lindell, Nof, Ohara 2016 (ePrint 2016/768), over
bits: 1 bit sent for each AND and member, nothing checked.

All three hold the lost member's component, so it is folded into another one. That leaves three
components of which each member lacks the one of its number, as before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedgrpo.secure.committee.engine import Share
from fedgrpo.secure.committee.identity import ComponentKeys, context, holders
from fedgrpo.secure.committee.inbox import Inbox
from fedgrpo.secure.committee.planes import Words
from fedgrpo.secure.committee.steps import Member, Step
from fedgrpo.secure.committee.streams import MaskStream, to_bytes
from fedgrpo.secure.primitives import derive


class ThreeParty:
    """One member's side.

    Adversary: one member is curious but follows the protocol (semi-honest), and learns nothing:
    what it is sent is masked by key stream under the one key that it lacks. A *malicious* member
    can alter messages unnoticed, and with them what is opened: three members are for crashes. The
    lost member must be gone, and not merely slandered: see
    :func:`fedgrpo.secure.committee.round.aggregate`.

    Parameters
    ----------
    index:
        The member, 0 to 3.
    lost:
        The member that crashed.
    keys:
        This member's component keys of the session.
    session:
        32 bytes.
    """

    def __init__(self, index: int, lost: int, keys: ComponentKeys, session: bytes) -> None:
        ring = holders(lost)
        self._lost, self._first = lost, ring[0]
        at = ring.index(index)
        # Member t of the ring holds components t + 1 and t + 2, and sends its share of a product
        # to member t + 2, the other holder of component t + 1.
        self._next, self._previous = ring[(at + 1) % 3], ring[(at + 2) % 3]
        self.place = {self._next: 0, self._previous: 1}
        self._zeros = [
            MaskStream(derive(keys.keys[m], context(session, "share of zero without", lost, m)))
            for m in self.place
        ]

    def conjoin(self, x: Share, y: Share) -> Member[Share]:
        """Bitwise AND, in one step; shapes broadcast."""
        z = np.empty(np.broadcast_shapes(x.shape, y.shape), np.uint64)
        own = np.bitwise_and(x[0], y[0] ^ y[1], out=z[0])
        own ^= x[1] & y[0]
        flat = own.reshape(-1)
        for zeros in self._zeros:  # over the ring each stream is added twice
            flat ^= zeros.words(flat.size)
        z[1] = (yield from self._pass(own)).reshape(z.shape[1:])
        return z

    def constant(self, planes: Words) -> Share:
        """Share public planes: they are the first component, the others are zero."""
        share = np.zeros((len(self.place), *planes.shape), np.uint64)
        if self._first in self.place:
            share[self.place[self._first]] = planes
        return share

    def shared(self, components: Mapping[int, Words]) -> Share:
        """Stack the components that this member holds, the lost member's folded into the first."""
        share = np.stack([components[component] for component in self.place])
        if self._first in self.place:
            share[self.place[self._first]] ^= components[self._lost]
        return share

    def open(self, x: Share) -> Member[Words]:
        """Reveal shared planes to all members, in one step; shape (..., W)."""
        missing = yield from self._pass(x[1])
        return np.asarray(x[0] ^ x[1] ^ missing.reshape(x.shape[1:]))

    def _pass(self, component: Words) -> Member[Words]:
        """Send a component to the previous member of the ring; receive one from the next."""
        outgoing = {self._previous: to_bytes(component), self._next: b""}
        inbox = Inbox((yield Step(outgoing, frozenset(outgoing))))
        received = inbox.words(self._next, component.size)
        inbox.close()
        return received
