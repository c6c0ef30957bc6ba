"""A node's side of buckets: keys first, then shares, then the release under masks.

What it keeps between messages is gone as soon as it has served, or when the next round begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flwr.app import Context, RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.state.memory import ROUND, NodeMemory
from fedgrpo.federation.wire.codec import Header, decode, encode, put, take
from fedgrpo.federation.wire.messages import Ciphertexts, Masked, UnmaskOrder
from fedgrpo.secure import encoding
from fedgrpo.secure.masking import MaskingClient
from fedgrpo.secure.roster import Roster
from fedgrpo.settings import Settings

MASKS = f"{ROUND}masks"
"""Record of the round's :class:`_Masks`."""


@dataclass(frozen=True)
class _Masks:
    """The mask secrets of a round, the bound of its release, and how many members the roster has
    that this node accepted, 0 before.
    """

    client: bytes
    bound: float
    members: int = 0


class Node(NodeSide):
    """Keeps the release until its bucket is agreed on."""

    def __init__(self) -> None:
        self.handlers = {"share": _share, "mask": _mask, "unmask": _unmask}

    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Answer with ephemeral public keys and a tag only."""
        least = max(task.minimum_bucket, task.settings.secure.bucket_size)
        masks = MaskingClient.open(
            task.header.run_id, task.header.round, task.context.node_id, least, order=task.digest
        )
        task.memory.keep_release(release)
        put(task.context.state, _Masks(masks.to_bytes(), task.plan.bound), MASKS)
        return encode(task.header, masks.public_keys, task.store.tag(task.ask, release))


@contextmanager
def _masks(context: Context) -> Iterator[MaskingClient]:
    """Lend the round's masking client, and store what became of it whether the call succeeds or is
    refused; raises ProtocolError if there is none.
    """
    kept = take(_Masks, context.state, MASKS)
    client = MaskingClient.from_bytes(kept.client)
    try:
        yield client
    finally:
        put(context.state, replace(kept, client=client.to_bytes()), MASKS)


def _header(context: Context) -> Header:
    return Header(context.run_id, NodeMemory(context.state).round)


def _share(content: RecordDict, context: Context, _: Settings) -> RecordDict:
    """Deal encrypted shares of this round's secrets to the bucket peers."""
    roster = decode(Roster, content)
    with _masks(context) as client:
        ciphertexts = client.share(roster)
    dealt = replace(take(_Masks, context.state, MASKS), members=len(roster.members))
    put(context.state, dealt, MASKS)
    return encode(_header(context), Ciphertexts(ciphertexts))


def _mask(content: RecordDict, context: Context, _: Settings) -> RecordDict:
    """Send the release under masks, in an encoding that the server has no say in."""
    ciphertexts = decode(Ciphertexts, content).by_node
    with _masks(context) as client:
        release, kept = NodeMemory(context.state).take_release(), take(_Masks, context.state, MASKS)
        bits = encoding.fraction_bits(kept.members, kept.bound)
        masked = client.mask(ciphertexts, encoding.encode(release, bits, kept.bound))
    return encode(_header(context), Masked(masked))


def _unmask(content: RecordDict, context: Context, _: Settings) -> RecordDict:
    """Answer once with shares of survivors' seeds or of dropped members' keys."""
    order, header = decode(UnmaskOrder, content), _header(context)
    with _masks(context) as client:
        revealed = client.reveal(
            header.run_id, header.round, order.bucket, order.survivors, order.dropped
        )
    return encode(header, revealed)
