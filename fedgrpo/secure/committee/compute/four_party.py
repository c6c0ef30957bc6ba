"""Boolean circuits among four members of whom one may be malicious.

Replicated secret sharing after Fantastic Four (Dalskov, Escudero, Keller 2021, USENIX Security;
ePrint 2020/1330), over bits, with abort instead of its player elimination.

A value is the XOR of four components; component m is held by all members but m, so one member
learns nothing and two learn everything. XOR is local. For ``z = x & y`` the product is the XOR of
all ``x_i & y_j``:

* ``x_i & y_i`` is known to all keepers of component i, who add it to ``z_i``;
* ``c = x_i & y_j ^ x_j & y_i`` is known to the two members g, h other than i and j. A mask r from
  key ``k_i``, which only i lacks, is added to ``z_i``, and ``c ^ r`` to ``z_j``. Member i, the one
  keeper of ``z_j`` who does not know it, is sent it by g; h sends a tag of it.

For half of the words i and j, and g and h, change roles, so that every member sends, receives and
checks the same amount: 1.5 bits for each AND.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fedgrpo.ground.crypto import derive
from fedgrpo.secure.committee.compute.engine import Share
from fedgrpo.secure.committee.compute.inbox import Inbox, disagreement
from fedgrpo.secure.committee.compute.planes import Words
from fedgrpo.secure.committee.compute.streams import TAG_BYTES, MaskStream, tag, to_bytes
from fedgrpo.secure.committee.keys.identity import ComponentKeys, context, keepers
from fedgrpo.secure.committee.steps import MEMBERS, Member, Step


@dataclass(frozen=True)
class Link:
    """One message of an AND: half of the words of one cross product.

    ``receiver`` and ``other`` are the components multiplied.
    """

    receiver: int
    other: int
    sender: int
    checker: int


def _links(i: int, j: int) -> tuple[Link, Link]:
    g, h = (m for m in range(MEMBERS) if m not in (i, j))
    return Link(i, j, g, h), Link(j, i, h, g)


PAIRS = tuple(_links(i, j) for i, j in combinations(range(MEMBERS), 2))
"""For each pair of components the message of the first half of the words and of the second."""
_REVEALERS = tuple(((m + 1) % MEMBERS, (m + 2) % MEMBERS) for m in range(MEMBERS))
"""Who sends each member the component that it lacks, and who a tag of it."""


class FourParty:
    """One member's side.

    Adversary: one member is malicious: it deviates at will, sees the honest members' messages of a
    step before it sends its own, and knows everything but the components and the key of its own
    number. Channels are private and authenticated. Then, until something is opened,

    * *privacy*: each message that it receives is masked by fresh key stream under the one key that
      it lacks, so its view is the same for all inputs of the others;
    * *correctness*: each message comes with a tag, from another member, under a key that the sender
      lacks (:func:`~fedgrpo.secure.committee.compute.streams.tag`). Tags are checked in the step in
      which they arrive and before anything that depends on the message is sent. It does not wait
      until the end: an honest member that went on with a wrong share would send messages whose tags
      depend on a secret bit, and comparing the two would give that bit away. So whatever an honest
      member sends is computed from right shares, and whether it aborts is known to the cheat in
      advance.

    An abort is an exception that says whom this member suspects. Suspicions may go to an operator;
    nothing in the protocol answers them, as an answer would be a message that depends on secrets.

    Parameters
    ----------
    index:
        The member, 0 to 3.
    keys:
        Its component keys of this session, used by nothing else for these purposes.
    session:
        32 bytes.
    """

    def __init__(self, index: int, keys: ComponentKeys, session: bytes) -> None:
        self.index = index
        self.place = {component: at for at, component in enumerate(keepers(index))}
        self._gate = 0

        def key(component: int, purpose: str, *parties: int) -> bytes:
            return derive(keys.keys[component], context(session, purpose, *parties))

        links = [link for pair in PAIRS for link in pair]
        self._masks = {
            link: MaskStream(key(link.receiver, "mask", link.receiver, link.other))
            for link in links
            if link.receiver != index
        }
        self._tags = {
            link: key(link.sender, "tag", link.receiver, link.other)
            for link in links
            if link.sender != index
        }
        self._opening_tags = {
            receiver: key(sender, "opening", receiver)
            for receiver, (sender, _) in enumerate(_REVEALERS)
            if sender != index
        }

    def conjoin(self, x: Share, y: Share) -> Member[Share]:
        """Bitwise AND, in one step; shapes broadcast."""
        self._gate += 1
        z = np.bitwise_and(x, y, order="C")
        flat = z.reshape(len(z), -1)
        half = (flat.shape[1] + 1) // 2
        halves = (slice(0, half), slice(half, flat.shape[1]))
        outgoing: dict[int, list[bytes]] = {peer: [] for peer in keepers(self.index)}
        for pair in PAIRS:
            helper = self.index in (pair[0].sender, pair[0].checker)
            cross = self._cross_product(x, y, pair[0]) if helper else None
            for link, part in zip(pair, halves, strict=True):
                if self.index == link.receiver:
                    continue
                mask = self._masks[link].words(part.stop - part.start)
                flat[self.place[link.receiver], part] ^= mask
                if cross is not None:
                    mask ^= cross[part]
                    flat[self.place[link.other], part] ^= mask
                    outgoing[link.receiver].append(self._say(link, mask))
        step = Step({p: b"".join(parts) for p, parts in outgoing.items()}, frozenset(outgoing))
        inbox = Inbox((yield step))
        for pair in PAIRS:
            for link, part in zip(pair, halves, strict=True):
                if self.index == link.receiver:
                    heard = self._hear(link, part.stop - part.start, inbox)
                    flat[self.place[link.other], part] ^= heard
        inbox.close()
        return z

    def constant(self, planes: Words) -> Share:
        """Share public planes: they are component 0, the others are zero."""
        share = np.zeros((len(self.place), *planes.shape), np.uint64)
        if 0 in self.place:
            share[self.place[0]] = planes
        return share

    def shared(self, components: Mapping[int, Words]) -> Share:
        """Stack the components that this member holds, each of shape (..., W)."""
        return np.stack([components[component] for component in self.place])

    def open(self, x: Share) -> Member[Words]:
        """Reveal shared planes to all members, in one step; shape (..., W).

        Each member is sent the component it lacks by one keeper and a tag of it by another.
        """
        outgoing = {peer: self._reveal(peer, x) for peer in keepers(self.index)}
        inbox = Inbox((yield Step(outgoing, frozenset(outgoing))))
        sender, checker = _REVEALERS[self.index]
        missing = inbox.words(sender, x[0].size)
        if tag(self._opening_tags[self.index], 0, missing) != inbox.take(checker, TAG_BYTES):
            raise disagreement(sender, checker)
        inbox.close()
        return np.asarray(np.bitwise_xor.reduce(x) ^ missing.reshape(x.shape[1:]))

    def _cross_product(self, x: Share, y: Share, link: Link) -> Words:
        i, j = self.place[link.receiver], self.place[link.other]
        cross = x[i] & y[j]
        cross ^= x[j] & y[i]
        return np.asarray(cross.reshape(-1))

    def _say(self, link: Link, message: Words) -> bytes:
        if self.index == link.sender:
            return to_bytes(message)
        return tag(self._tags[link], self._gate, message)

    def _hear(self, link: Link, size: int, inbox: Inbox) -> Words:
        message = inbox.words(link.sender, size)
        if tag(self._tags[link], self._gate, message) != inbox.take(link.checker, TAG_BYTES):
            raise disagreement(link.sender, link.checker)
        return message

    def _reveal(self, receiver: int, x: Share) -> bytes:
        sender, checker = _REVEALERS[receiver]
        component = x[self.place[receiver]]
        if self.index == sender:
            return to_bytes(component)
        return tag(self._opening_tags[receiver], 0, component) if self.index == checker else b""
