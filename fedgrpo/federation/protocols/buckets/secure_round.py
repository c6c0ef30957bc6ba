"""The three masked stages of a round: from participants with their keys to the means of their
buckets.

Adversary: the server runs this and is honest but curious; nodes may send anything. What the server
learns of any client is the sum over its bucket, see :mod:`fedgrpo.secure.masking`. A node that
fails at a stage loses its own place; a bucket with fewer survivors than its threshold is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Failures, Phase
from fedgrpo.federation.protocols.means import Group, GroupMeans, block_size
from fedgrpo.federation.protocols.spool import Spool
from fedgrpo.federation.wire.codec import check_size, decode, encode
from fedgrpo.federation.wire.link import Answers, Link
from fedgrpo.federation.wire.messages import (
    MASK,
    SHARE,
    UNMASK,
    Ciphertexts,
    Masked,
    UnmaskOrder,
)
from fedgrpo.ground.crypto import agree, new_private_key
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.secure.buckets import assign_buckets
from fedgrpo.secure.encoding import decode_sum, fraction_bits
from fedgrpo.secure.masks import Mask, blocks_of, masked_sum
from fedgrpo.secure.roster import PublicKeys, Revealed, Roster
from fedgrpo.secure.unmasking import open_masks
from fedgrpo.settings.protocols.buckets import secret_threshold

Admit = Callable[[Sequence[Set[int]]], Sequence[bool]]
"""Tells which sums over these nodes may be opened, see
:mod:`fedgrpo.federation.protocols.openings`."""


@dataclass
class _Bucket:
    """One bucket on its way through the stages."""

    roster: Roster
    dealt: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, int] = field(default_factory=dict)
    """Places of the survivors' masked vectors in the round's spool."""
    admitted: bool = True

    @property
    def sharers(self) -> tuple[int, ...]:
        return tuple(sorted(self.dealt))

    @property
    def survivors(self) -> tuple[int, ...]:
        return tuple(sorted(self.masked))

    @property
    def dropped(self) -> tuple[int, ...]:
        return tuple(node for node in self.sharers if node not in self.masked)

    def reaches(self, nodes: Sequence[int]) -> bool:
        """Whether so many nodes can still be unmasked."""
        return len(nodes) >= self.roster.threshold


def read_participant(content: RecordDict) -> PublicKeys:
    """Read a participant's public keys and make sure that its peers can use them.

    A key of low order, or one key twice, would make every peer refuse the roster: the sender alone
    pays instead. Raises ProtocolError if the keys are malformed or of no use.
    """
    keys = decode(PublicKeys, content)
    if keys.sharing == keys.masking:
        raise ProtocolError("one public key for two purposes", cure="leave that node out")
    for key in (keys.sharing, keys.masking):
        agree(new_private_key(), key, b"usable")
    return keys


def secure_bucket_means(
    link: Link,
    participants: Mapping[int, PublicKeys],
    plan: ReleasePlan,
    least: int,
    phase: Phase,
    *,
    order: bytes,
    key: bytes | None = None,
    admit: Admit = lambda sums: [True] * len(sums),
) -> GroupMeans:
    """Run the masked stages over all buckets at once.

    Parameters
    ----------
    participants:
        Public keys by node, at least ``least`` of them. Their order and ``key`` decide the draw.
    plan:
        Size and bound of a release.
    least:
        Least members of a bucket.
    phase:
        Entered around each stage.
    order:
        SHA-256 of what the nodes were ordered to compute, 32 bytes.
    key:
        Of the draw of buckets, see :func:`fedgrpo.secure.buckets.assign_buckets`.
    admit:
        Asked before any sum is opened.

    Returns
    -------
    GroupMeans
        Of the buckets that reached their threshold, exact up to half a step a coordinate. All
        blocks are of the same survivors, under masks that are open when this returns.
    """
    buckets = [_Bucket(roster) for roster in make_rosters(link, participants, least, order, key)]
    failures: Failures = {}
    with phase("share"):
        failures |= _share(link, buckets)
    with phase("mask"):
        spool = Spool(plan.size, np.uint32)
        failures |= _mask(link, buckets, spool)
    with phase("unmask"):
        _admit(buckets, admit)
        revealed = _unmask(link, buckets)
        opened = [_opened(bucket, revealed, plan.bound, failures) for bucket in buckets]
    sums = [each for each in opened if each]
    return GroupMeans(tuple(each.group for each in sums), failures, _means(sums, spool))


def make_rosters(
    link: Link,
    participants: Mapping[int, PublicKeys],
    least: int,
    order: bytes,
    key: bytes | None = None,
) -> list[Roster]:
    """Draw buckets of at least ``least`` participants and write their rosters."""
    return [
        Roster(
            run_id=link.header.run_id,
            round=link.header.round,
            bucket=number,
            members=members,
            keys=tuple(participants[member] for member in members),
            threshold=secret_threshold(len(members)),
            order=order,
        )
        for number, members in enumerate(assign_buckets(list(participants), least, key))
    ]


def _share(link: Link, buckets: Sequence[_Bucket]) -> Failures:
    bucket_of = {node: bucket for bucket in buckets for node in bucket.roster.members}
    contents = {node: encode(link.header, b.roster) for node, b in bucket_of.items()}

    def read(node: int, content: RecordDict) -> dict[int, bytes]:
        dealt = dict(decode(Ciphertexts, content).by_node)
        if set(dealt) != set(bucket_of[node].roster.peers_of(node)):
            raise ProtocolError("shares for others than the peers", cure="leave that node out")
        return dealt

    answers = link.ask(SHARE, contents, read)
    for node, dealt in answers.values.items():
        bucket_of[node].dealt[node] = dealt
    return answers.failures


def _mask(link: Link, buckets: Sequence[_Bucket], spool: Spool) -> Failures:
    bucket_of = {n: b for b in buckets if b.reaches(b.sharers) for n in b.sharers}
    contents = {
        node: encode(
            link.header,
            Ciphertexts({peer: b.dealt[peer][node] for peer in b.sharers if peer != node}),
        )
        for node, b in bucket_of.items()
    }

    def read(_: int, content: RecordDict) -> int:
        masked = decode(Masked, content).vector
        check_size(masked, spool.size)
        return spool.add(masked)

    answers = link.ask(MASK, contents, read, reply_bytes=4 * spool.size)
    for node, place in answers.values.items():
        bucket_of[node].masked[node] = place
    return answers.failures


def _admit(buckets: Sequence[_Bucket], admit: Admit) -> None:
    """Keep closed what must not be opened beside what was opened before."""
    able = [bucket for bucket in buckets if bucket.reaches(bucket.survivors)]
    for bucket, fits in zip(able, admit([set(b.survivors) for b in able]), strict=True):
        bucket.admitted = fits


def _unmask(link: Link, buckets: Sequence[_Bucket]) -> Answers[Revealed]:
    contents = {
        node: encode(link.header, UnmaskOrder(b.roster.bucket, b.survivors, b.dropped))
        for b in buckets
        if b.admitted and b.reaches(b.survivors)
        for node in b.survivors
    }
    return link.ask(UNMASK, contents, lambda _, content: decode(Revealed, content))


@dataclass(frozen=True)
class _Sum:
    """A bucket's sum, of which everything is known but what it is."""

    group: Group
    bits: int
    places: tuple[int, ...]
    masks: list[Mask]


def _opened(
    bucket: _Bucket, revealed: Answers[Revealed], bound: float, failures: Failures
) -> _Sum | None:
    """Reconstruct the masks on one bucket's sum, or note for each member that it is lost."""
    try:
        if not bucket.reaches(bucket.survivors):
            raise ProtocolError(f"{len(bucket.survivors)} survivors", cure="leave it out")
        if not bucket.admitted:
            raise ProtocolError(
                "another sum with some of its members was opened before the round was interrupted, "
                "or may have been since the backup that this run is from",
                cure="leave it out",
            )
        answers = {n: r for n, r in revealed.values.items() if n in bucket.masked}
        masks = open_masks(bucket.roster, bucket.sharers, bucket.survivors, answers)
    except ProtocolError as error:
        for node in bucket.roster.members:
            failures.setdefault(node, f"its bucket was lost: {error.problem}")
        return None
    bits = fraction_bits(len(bucket.roster.members), bound)
    places = tuple(bucket.masked[node] for node in bucket.survivors)
    return _Sum(Group(bucket.survivors, 2.0**-bits), bits, places, masks)


def _means(sums: Sequence[_Sum], spool: Spool) -> Iterator[NDArray[np.float64]]:
    """Take the masks off all sums, a block of coordinates at a time, in their order."""
    for block in blocks_of(spool.size, block_size(len(sums))):
        means = np.empty((len(sums), block.stop - block.start))
        for row, one in zip(means, sums, strict=True):
            total = masked_sum([spool.read(place, block) for place in one.places], one.masks)
            row[:] = decode_sum(total, one.bits) / len(one.places)
        yield means
