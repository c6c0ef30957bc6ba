"""Messages in Flower's records: each dataclass in a record of its own name, under one header.

Adversary: whoever sent the message; see :mod:`fedgrpo.ground.codec`. What the sender says about an
array must be what its bytes hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.versions import PROTOCOL, VERSION
from fedgrpo.ground.codec import CURE, Folded, fold, unfold
from fedgrpo.ground.errors import ProtocolError, TurnError, VersionError
from fedgrpo.ground.kept import pack_arrays, unpack_arrays

T = TypeVar("T")

HEADER = "fedgrpo"
"""Name of the record that every message of every version carries."""

_ARRAYS = ".arrays"
_PACKED = "packed"
"""Name of the one array into which a dataclass's arrays are written."""
_FACTS = "facts"
_NPY_HEADER = 4096
"""More bytes than the header of a serialised array ever takes."""


@dataclass(frozen=True)
class Header:
    """Which round of which run a message belongs to."""

    run_id: int
    round: int


@dataclass(frozen=True)
class _Sender:
    """What the header says besides, in every version alike."""

    protocol: int
    version: str


def encode(header: Header, *messages: object) -> RecordDict:
    """Write dataclasses of different classes as one message."""
    sender = _Sender(PROTOCOL, VERSION)
    content = RecordDict({HEADER: ConfigRecord(fold(sender).scalars | fold(header).scalars)})
    for message in messages:
        put(content, message)
    return content


def decode(kind: type[T], content: RecordDict) -> T:
    """Read one of a message's dataclasses.

    Raises
    ------
    VersionError
        If the sender speaks another protocol or runs another version of fedgrpo.
    ProtocolError
        If it is malformed or not there.
    """
    read_header(content)
    return take(kind, content)


def read_header(content: RecordDict) -> Header:
    """Read what every message carries; errors are those of :func:`decode`."""
    header = Folded(_config(content, HEADER))
    sender = unfold(_Sender, header)
    for name, theirs, ours in (
        ("protocol", sender.protocol, PROTOCOL),
        ("version", sender.version, VERSION),
    ):
        if theirs != ours:
            raise VersionError(
                f"the peer has {name} {str(theirs)[:20]!r} of fedgrpo, this side has {ours!r}",
                cure="install the same version of fedgrpo on server and nodes",
            )
    return unfold(Header, header)


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


def put(content: RecordDict, value: object, name: str = "") -> None:
    """Write a dataclass into records, under its class's name unless told otherwise.

    Its arrays become one: Flower sends two objects for each array, one by one, on every hop.
    """
    folded, name = fold(value), name or type(value).__name__
    drop(content, name)
    content[name] = ConfigRecord(folded.scalars)
    if folded.arrays:
        data = np.frombuffer(pack_arrays(folded.arrays), np.uint8)
        content[name + _ARRAYS] = ArrayRecord({_PACKED: Array(data)})


def take(kind: type[T], content: RecordDict, name: str = "") -> T:
    """Read what :func:`put` wrote; raises ProtocolError."""
    name = name or kind.__name__
    scalars = _config(content, name)
    return unfold(kind, Folded(scalars, _arrays(content, name + _ARRAYS)))


def drop(content: RecordDict, name: str) -> None:
    """Wipe what :func:`put` wrote, if anything."""
    for record in (name, name + _ARRAYS):
        if record in content:
            del content[record]


def pack(value: object) -> ArrayRecord:
    """Write a dataclass as arrays alone, as Flower's strategies hand models on."""
    folded = fold(value)
    facts = Array(np.frombuffer(folded.to_json().encode(), np.uint8))
    return ArrayRecord({_FACTS: facts} | {k: Array(a) for k, a in folded.arrays.items()})


def unpack(kind: type[T], record: ArrayRecord) -> T:
    """Invert :func:`pack`; raises ProtocolError."""
    arrays = load_arrays(record)
    facts = arrays.pop(_FACTS, np.zeros(0, np.uint8))
    return unfold(kind, Folded.from_json(facts.tobytes(), arrays))


def check_size(array: NDArray[Any], size: int) -> None:
    """Refuse an array that is no vector of that size; raises ProtocolError."""
    if array.shape != (size,):
        raise ProtocolError(f"an array of shape {array.shape}, not {(size,)}", cure=CURE)


def load_arrays(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Read the arrays of a record; raises ProtocolError on any that is forged."""
    return {name: _load(item, name) for name, item in record.items()}


def _arrays(content: RecordDict, name: str) -> dict[str, NDArray[Any]]:
    """What :func:`put` wrote as one array; nothing where it wrote none."""
    record = content.get(name, ArrayRecord())
    if not isinstance(record, ArrayRecord):
        raise ProtocolError(f"record {name!r} is of another kind", cure=CURE)
    packed = load_arrays(record).get(_PACKED)
    return {} if packed is None else unpack_arrays(packed.tobytes())


def _config(content: RecordDict, name: str) -> dict[str, Any]:
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"record {name!r} is missing or of another kind", cure=CURE)
    return dict(record)


def _load(item: Array, name: str) -> NDArray[Any]:
    # What the sender says about the array must be what the bytes hold. Anything else, and anything
    # that NumPy makes of a forged header, is one and the same fault.
    try:
        surplus = len(item.data) - np.dtype(item.dtype).itemsize * math.prod(item.shape)
        if not 0 <= surplus <= _NPY_HEADER:
            raise ValueError
        loaded = item.numpy()
        if str(loaded.dtype) != item.dtype or loaded.shape != tuple(item.shape):
            raise ValueError
    except Exception:
        raise ProtocolError(f"array {name!r} cannot be read", cure=CURE) from None
    return loaded
