"""Plays one bucket: members and server in one process, every state serialised between messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedgrpo.secure import MaskingClient, PublicKeys, Revealed, Roster, unmask_sum

RUN, ROUND, BUCKET = 2**61 + 5, 7, 3
ORDER = b"o" * 32
Vector = NDArray[np.uint32]


def node(index: int) -> int:
    """Flower's node ids are large."""
    return 2**62 + 1000 * index + 1


def revived(client: MaskingClient) -> MaskingClient:
    return MaskingClient.from_bytes(client.to_bytes())


def announce(
    keys: dict[int, PublicKeys], threshold: int | None = None, bucket: int = BUCKET
) -> Roster:
    members = tuple(sorted(keys))
    return Roster(
        RUN,
        ROUND,
        bucket,
        members,
        tuple(keys[member] for member in members),
        len(members) // 2 + 1 if threshold is None else threshold,
        ORDER,
    )


def members_and_roster(
    count: int, threshold: int | None = None, minimum: int = 2
) -> tuple[dict[int, MaskingClient], Roster]:
    clients = {
        node(i): MaskingClient.open(RUN, ROUND, node(i), minimum=minimum, order=ORDER)
        for i in range(count)
    }
    return clients, announce({n: c.public_keys for n, c in clients.items()}, threshold)


def vectors(members: Iterable[int], words: int = 32) -> dict[int, Vector]:
    rng = np.random.default_rng(0)
    return {member: rng.integers(0, 2**32, words, dtype=np.uint32) for member in members}


@dataclass
class Bucket:
    """Everything that a full run leaves behind."""

    clients: dict[int, MaskingClient]
    roster: Roster
    values: dict[int, Vector]
    sent: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, Vector] = field(default_factory=dict)
    revealed: dict[int, Revealed] = field(default_factory=dict)

    def step(self, member: int) -> MaskingClient:
        self.clients[member] = revived(self.clients[member])
        return self.clients[member]

    def share(self, members: Collection[int] | None = None) -> Bucket:
        for member in self.roster.members if members is None else members:
            self.sent[member] = self.step(member).share(self.roster)
        return self

    def inbox(self, member: int) -> dict[int, bytes]:
        return {peer: sent[member] for peer, sent in self.sent.items() if peer != member}

    def mask(self, members: Collection[int] | None = None) -> Bucket:
        for member in self.sent if members is None else members:
            values = self.values[member]
            self.masked[member] = self.step(member).mask(self.inbox(member), values)
        return self

    @property
    def dropped(self) -> list[int]:
        return [member for member in self.sent if member not in self.masked]

    def reveal(self, members: Collection[int] | None = None) -> Bucket:
        for member in self.masked if members is None else members:
            self.revealed[member] = self.step(member).reveal(
                RUN, ROUND, BUCKET, list(self.masked), self.dropped
            )
        return self

    def unmask(self) -> Vector:
        return unmask_sum(self.roster, list(self.sent), self.masked, self.revealed)

    def clear_sum(self) -> Vector:
        return np.sum([self.values[member] for member in self.masked], axis=0, dtype=np.uint32)

    def tamper(self, member: int, change: Callable[[Revealed], Revealed]) -> Bucket:
        self.revealed[member] = change(self.revealed[member])
        return self


def bucket(count: int, threshold: int | None = None, words: int = 32) -> Bucket:
    clients, roster = members_and_roster(count, threshold)
    return Bucket(clients, roster, vectors(clients, words))
