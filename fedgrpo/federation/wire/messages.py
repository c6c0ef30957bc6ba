"""The messages of a round as frozen dataclasses, and their passage into Flower's records and back.

========  ==================================  ===========================================
stage     to each node                        back
========  ==================================  ===========================================
train     :class:`TrainOrder`                 its ephemeral public keys (plain: its release), a tag
share     the :class:`Roster` of its bucket   one ciphertext for each peer
mask      the peers' ciphertexts              one masked vector
unmask    :class:`UnmaskOrder`                :class:`Revealed`
========  ==================================  ===========================================

Every message carries protocol, version, run and round. Reading refuses any of them that does not
fit. A node that does not do what a stage asks for answers with a refusal code instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.records import (
    any_array,
    array,
    array_record,
    config_record,
    pairs,
    scalar,
    values,
)
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION
from fedgrpo.ground.errors import AdapterError, BoundsError, ProtocolError, TurnError, VersionError
from fedgrpo.model.adapter import AdapterState, check_values
from fedgrpo.secure.masking import PublicKeys, Revealed, Roster
from fedgrpo.site.refusals import Refusal

TRAIN, SHARE, MASK, UNMASK = "train", "query.share", "query.mask", "query.unmask"
"""Flower's types of the four messages."""

HEADER, BODY, ADAPTER, MASKED, RELEASE = "fedgrpo", "body", "adapter", "masked", "release"
REFUSAL, TAG = "refusal", "tag"
"""Names of the records in a message."""

_VECTOR, _LAYOUT, _BASIS = "vector", "layout", "basis."


@dataclass(frozen=True)
class Header:
    """Which round of which run a message belongs to."""

    run_id: int
    round: int


@dataclass(frozen=True)
class TrainOrder:
    """The server's order to train one round.

    Attributes
    ----------
    run:
        Name of the run: 32 hexadecimal digits that stay when Flower's run id changes in a resume.
    adapter:
        The global adapter.
    clipping_norm:
        L2 norm C of this round. Everything else about the release follows from the settings on the
        node.
    fingerprint:
        Of the settings, which must be the node's too.
    """

    header: Header
    run: str
    adapter: AdapterState
    clipping_norm: float
    fingerprint: str


@dataclass(frozen=True)
class Tag:
    """What a node says of its release besides.

    Attributes
    ----------
    name:
        Its pseudonym in this run: 32 hexadecimal digits.
    commitment:
        Salted, to its release: 64 hexadecimal digits.
    """

    name: str
    commitment: str


@dataclass(frozen=True)
class UnmaskOrder:
    """The server's question which masks to take off."""

    bucket: int
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]


def write_header(header: Header) -> ConfigRecord:
    """Write what every message carries."""
    return ConfigRecord(
        {"protocol": PROTOCOL, "version": VERSION, "run": header.run_id, "round": header.round}
    )


def read_header(content: RecordDict) -> Header:
    """Read what every message carries.

    Raises
    ------
    VersionError
        If the sender speaks another protocol or runs another version of fedgrpo.
    ProtocolError
        If it is malformed.
    """
    record = config_record(content, HEADER)
    for name, theirs, ours in (
        ("protocol", scalar(record, "protocol", int), PROTOCOL),
        ("version", scalar(record, "version", str), VERSION),
    ):
        if theirs != ours:
            raise VersionError(
                f"the peer has {name} {str(theirs)[:20]!r} of fedgrpo, this side has {ours!r}",
                cure="install the same version of fedgrpo on server and nodes",
            )
    return Header(scalar(record, "run", int), scalar(record, "round", int))


def check_header(content: RecordDict, expected: Header) -> None:
    """Refuse a message of another run or round, or from another version.

    Raises
    ------
    TurnError
        With both.
    """
    found = read_header(content)
    if found != expected:
        raise TurnError(
            f"message of run {found.run_id}, round {found.round}; expected run {expected.run_id}, "
            f"round {expected.round}",
            cure="answer each message once and in its round",
        )


def write_adapter(adapter: AdapterState) -> ArrayRecord:
    """Write an adapter: its vector, frozen basis and layout hash."""
    record = ArrayRecord({_VECTOR: Array(adapter.vector)})
    record[_LAYOUT] = Array(np.frombuffer(adapter.layout.encode("ascii"), np.uint8))
    for name, frozen in adapter.basis.items():
        record[_BASIS + name] = Array(np.ascontiguousarray(frozen))
    return record


def read_adapter(record: ArrayRecord) -> AdapterState:
    """Read an adapter.

    Raises
    ------
    ProtocolError
        If its vector is missing or not float32, or its layout is no hash.
    BoundsError
        If the vector is not of one dimension, or any value is not finite float32 within
        :data:`fedgrpo.model.adapter.LARGEST`.
    """
    vector = array(record, _VECTOR, "float32")
    basis = {
        name.removeprefix(_BASIS): any_array(record, name)
        for name in record
        if name.startswith(_BASIS)
    }
    try:
        check_values(vector, basis)
    except AdapterError as error:
        raise BoundsError(error.problem, cure=error.cure) from None
    layout = array(record, _LAYOUT, "uint8").tobytes().decode("ascii", errors="replace")
    if len(layout) != 64 or set(layout) - set("0123456789abcdef"):
        raise ProtocolError("the adapter's layout is no hash", cure="send the server's own")
    return AdapterState(vector, basis, layout)


def write_order(order: TrainOrder) -> RecordDict:
    """Write the order to train."""
    body = ConfigRecord(
        {
            "run": order.run,
            "clipping-norm": order.clipping_norm,
            "settings": order.fingerprint,
        }
    )
    return RecordDict(
        {
            HEADER: write_header(order.header),
            BODY: body,
            ADAPTER: write_adapter(order.adapter),
        }
    )


def read_order(content: RecordDict) -> TrainOrder:
    """Read the order to train.

    Raises
    ------
    ProtocolError
        If it is of another version or malformed.
    """
    header, body = read_header(content), config_record(content, BODY)
    return TrainOrder(
        header,
        _hexadecimal(body, "run", 32),
        read_adapter(array_record(content, ADAPTER)),
        scalar(body, "clipping-norm", float),
        scalar(body, "settings", str),
    )


def write_tag(tag: Tag) -> ConfigRecord:
    """Write what a node says of its release besides."""
    return ConfigRecord({"name": tag.name, "commitment": tag.commitment})


def read_tag(content: RecordDict) -> Tag:
    """Read a participant's tag; raises ProtocolError."""
    record = config_record(content, TAG)
    return Tag(_hexadecimal(record, "name", 32), _hexadecimal(record, "commitment", 64))


def write_keys(header: Header, keys: PublicKeys, tag: Tag) -> RecordDict:
    """Write a participant's ephemeral public keys and tag: all that leaves a node after
    training.
    """
    body = ConfigRecord({"keys": keys.to_bytes()})
    return RecordDict({HEADER: write_header(header), BODY: body, TAG: write_tag(tag)})


def read_keys(content: RecordDict) -> PublicKeys:
    """Read a participant's public keys; raises ProtocolError."""
    return PublicKeys.from_bytes(scalar(config_record(content, BODY), "keys", bytes))


def write_release(header: Header, release: NDArray[np.float64], tag: Tag) -> RecordDict:
    """Write a release as it is, float64, shape (size,), for a server that is trusted with it."""
    record = ArrayRecord({_VECTOR: Array(release)})
    return RecordDict({HEADER: write_header(header), RELEASE: record, TAG: write_tag(tag)})


def read_release(content: RecordDict, size: int) -> NDArray[np.float64]:
    """Read a release; raises ProtocolError unless it is finite float64 of shape (size,)."""
    release: NDArray[np.float64] = array(
        array_record(content, RELEASE), _VECTOR, "float64", (size,)
    )
    if not np.isfinite(release).all():
        raise ProtocolError("a release that is not finite", cure="leave that node out")
    return release


def write_roster(roster: Roster) -> RecordDict:
    """Write a bucket's roster."""
    body = ConfigRecord(
        {
            "bucket": roster.bucket,
            "threshold": roster.threshold,
            "order": roster.order,
            "members": list(roster.members),
            "keys": [keys.to_bytes() for keys in roster.keys],
        }
    )
    return RecordDict({HEADER: write_header(Header(roster.run_id, roster.round)), BODY: body})


def read_roster(content: RecordDict) -> Roster:
    """Read a bucket's roster, acceptable or not; raises ProtocolError if it is malformed."""
    header, body = read_header(content), config_record(content, BODY)
    return Roster(
        run_id=header.run_id,
        round=header.round,
        bucket=scalar(body, "bucket", int),
        members=tuple(values(body, "members", int)),
        keys=tuple(PublicKeys.from_bytes(keys) for keys in values(body, "keys", bytes)),
        threshold=scalar(body, "threshold", int),
        order=scalar(body, "order", bytes),
    )


def write_ciphertexts(header: Header, ciphertexts: Mapping[int, bytes]) -> RecordDict:
    """Write encrypted shares by node: by recipient on their way in, by sender on their way out."""
    body = ConfigRecord({"nodes": list(ciphertexts), "ciphertexts": list(ciphertexts.values())})
    return RecordDict({HEADER: write_header(header), BODY: body})


def read_ciphertexts(content: RecordDict) -> dict[int, bytes]:
    """Read encrypted shares by node; raises ProtocolError."""
    return pairs(config_record(content, BODY), "nodes", "ciphertexts", bytes)


def write_masked(header: Header, masked: NDArray[np.uint32]) -> RecordDict:
    """Write a masked vector, uint32, shape (size,)."""
    return RecordDict({HEADER: write_header(header), MASKED: ArrayRecord({_VECTOR: Array(masked)})})


def read_masked(content: RecordDict, size: int) -> NDArray[np.uint32]:
    """Read a masked vector; raises ProtocolError unless it is uint32 of shape (size,)."""
    return array(array_record(content, MASKED), _VECTOR, "uint32", (size,))


def write_unmask(header: Header, order: UnmaskOrder) -> RecordDict:
    """Write the question which masks to take off."""
    body = ConfigRecord(
        {
            "bucket": order.bucket,
            "survivors": list(order.survivors),
            "dropped": list(order.dropped),
        }
    )
    return RecordDict({HEADER: write_header(header), BODY: body})


def read_unmask(content: RecordDict) -> UnmaskOrder:
    """Read the question which masks to take off; raises ProtocolError."""
    body = config_record(content, BODY)
    return UnmaskOrder(
        scalar(body, "bucket", int),
        tuple(values(body, "survivors", int)),
        tuple(values(body, "dropped", int)),
    )


def write_revealed(header: Header, revealed: Revealed) -> RecordDict:
    """Write a survivor's answer."""
    body = ConfigRecord(
        {
            "survivors": list(revealed.seed_shares),
            "seed-shares": list(revealed.seed_shares.values()),
            "dropped": list(revealed.key_shares),
            "key-shares": list(revealed.key_shares.values()),
        }
    )
    return RecordDict({HEADER: write_header(header), BODY: body})


def read_revealed(content: RecordDict) -> Revealed:
    """Read a survivor's answer, true or not; raises ProtocolError if it is malformed."""
    body = config_record(content, BODY)
    return Revealed(
        pairs(body, "survivors", "seed-shares", bytes), pairs(body, "dropped", "key-shares", bytes)
    )


def write_refusal(header: Header, code: Refusal) -> RecordDict:
    """Write that the node does not do what was asked: the code and nothing else."""
    return RecordDict({HEADER: write_header(header), REFUSAL: ConfigRecord({"code": code.value})})


def read_refusal(content: RecordDict) -> Refusal | None:
    """Read a refusal's code; None if the content is none.

    Raises
    ------
    ProtocolError
        If the code is not one that is known.
    """
    if REFUSAL not in content:
        return None
    code = scalar(config_record(content, REFUSAL), "code", str)
    if code not in set(Refusal):
        raise ProtocolError("unknown refusal code", cure="install the same version everywhere")
    return Refusal(code)


def _hexadecimal(record: ConfigRecord, name: str, digits: int) -> str:
    text = scalar(record, name, str)
    if len(text) != digits or set(text) - set("0123456789abcdef"):
        raise ProtocolError(
            f"field {name!r} is not {digits} hexadecimal digits",
            cure="install the same version of fedgrpo on server and nodes",
        )
    return text
