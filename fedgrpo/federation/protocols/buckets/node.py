"""A node's side of buckets: keys first, then shares, then the release under masks.

What it keeps between messages is gone as soon as it has served, or when the next round begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import ConfigRecord, Context, RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.state.memory import ROUND, NodeMemory
from fedgrpo.federation.wire import messages
from fedgrpo.federation.wire.messages import Header
from fedgrpo.federation.wire.records import config_record, scalar
from fedgrpo.secure.encoding import encode, fraction_bits
from fedgrpo.secure.masking import MaskingClient
from fedgrpo.settings import Settings

MASKS = f"{ROUND}masks"
"""Record of the mask secrets, the bound of the release, and the members of the roster that this
node accepted, 0 before."""


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
        task.context.state[MASKS] = ConfigRecord(
            {"client": masks.to_bytes(), "bound": task.plan.bound, "members": 0}
        )
        return messages.write_keys(
            task.header, masks.public_keys, task.store.tag(task.ask, release)
        )


@contextmanager
def _masks(context: Context) -> Iterator[MaskingClient]:
    """Lend the round's masking client, and store what became of it whether the call succeeds or is
    refused; raises ProtocolError if there is none.
    """
    record = config_record(context.state, MASKS)
    client = MaskingClient.from_bytes(scalar(record, "client", bytes))
    try:
        yield client
    finally:
        record["client"] = client.to_bytes()


def _header(context: Context) -> Header:
    return Header(context.run_id, NodeMemory(context.state).round)


def _share(content: RecordDict, context: Context, _: Settings) -> RecordDict:
    """Deal encrypted shares of this round's secrets to the bucket peers."""
    roster = messages.read_roster(content)
    with _masks(context) as client:
        ciphertexts = client.share(roster)
    config_record(context.state, MASKS)["members"] = len(roster.members)
    return messages.write_ciphertexts(_header(context), ciphertexts)


def _mask(content: RecordDict, context: Context, _: Settings) -> RecordDict:
    """Send the release under masks, in an encoding that the server has no say in."""
    ciphertexts = messages.read_ciphertexts(content)
    with _masks(context) as client:
        release, record = NodeMemory(context.state).take_release(), context.state[MASKS]
        assert isinstance(record, ConfigRecord)
        bound, members = scalar(record, "bound", float), scalar(record, "members", int)
        masked = client.mask(ciphertexts, encode(release, fraction_bits(members, bound), bound))
    return messages.write_masked(_header(context), masked)


def _unmask(content: RecordDict, context: Context, _: Settings) -> RecordDict:
    """Answer once with shares of survivors' seeds or of dropped members' keys."""
    order, header = messages.read_unmask(content), _header(context)
    with _masks(context) as client:
        revealed = client.reveal(
            header.run_id, header.round, order.bucket, order.survivors, order.dropped
        )
    return messages.write_revealed(header, revealed)
