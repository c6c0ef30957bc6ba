"""Messages come back as they were, and whatever else arrives is a ProtocolError."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedgrpo.federation.protocols.committee.convening.messages import (
    Dealer,
    DealOrder,
    Dealt,
    Growth,
    Progress,
    Vouched,
    Work,
)
from fedgrpo.federation.protocols.committee.convening.seats import DealingKey, Seat
from fedgrpo.federation.wire.codec import (
    HEADER,
    Header,
    check_header,
    decode,
    encode,
    read_header,
    take,
    unpack,
)
from fedgrpo.federation.wire.messages import (
    Ciphertexts,
    KeptBasis,
    Masked,
    Refused,
    Tag,
    TrainOrder,
    Unmasked,
    UnmaskOrder,
    read_adapter,
    read_refusal,
    write_adapter,
)
from fedgrpo.ground.codec import fold, unfold
from fedgrpo.ground.errors import BoundsError, ProtocolError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.secure.masking import PublicKeys, Revealed, Roster
from fedgrpo.site.refusals import Refusal
from tests.federation.packed import PACKED

NODES = st.integers(1, 2**64 - 1)
"""Flower's node ids are unsigned 64-bit numbers."""
SMALL = st.integers(-(2**63), 2**63 - 1)
WORDS = st.binary(min_size=32, max_size=32)
DIGESTS = WORDS.map(bytes.hex)
NAMES = st.binary(min_size=16, max_size=16).map(bytes.hex)
KEYS = st.builds(PublicKeys, WORDS, WORDS, WORDS)
HEADERS = st.builds(Header, NODES, st.integers(1, 10**6))
MEMBERS = st.builds(MemberKeys, WORDS, WORDS)
NUMBERED = st.dictionaries(NODES, st.binary(max_size=40), max_size=4)
POSTS = st.dictionaries(st.integers(0, 3), st.lists(st.binary(max_size=9), max_size=3))
SEATS = st.builds(
    Seat,
    MEMBERS,
    NODES,
    st.integers(0, 9),
    st.lists(DIGESTS, max_size=3).map(tuple),
    st.one_of(st.just(""), DIGESTS),
    st.binary(max_size=64),
)
DEALING = st.builds(DealingKey, WORDS, WORDS, NODES, st.binary(max_size=128))
LOST = st.integers(-1, 3)
ADAPTERS = st.builds(
    AdapterState,
    arrays(np.float32, st.integers(1, 20), elements=st.floats(-10, 10, width=32)),
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        arrays(
            np.float32,
            array_shapes(min_dims=0, max_dims=3, max_side=4),
            elements=st.floats(-1e6, 1e6, width=32),
        ),
    ),
    DIGESTS,
)
ROSTERS = st.lists(st.tuples(NODES, KEYS), min_size=2, max_size=5, unique_by=lambda m: m[0]).map(
    lambda members: Roster(
        1, 2, 3, tuple(m for m, _ in members), tuple(k for _, k in members), 2, bytes(32)
    )
)
IDS = st.lists(NODES, unique=True, max_size=4).map(tuple)
CLIENTS = st.dictionaries(st.integers(0, 9), DEALING, max_size=3)
FOUR = st.lists(SEATS, max_size=4).map(tuple)
MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    TrainOrder: st.builds(TrainOrder, HEADERS, NAMES, ADAPTERS, st.floats(1e-6, 1e6), DIGESTS),
    Tag: st.builds(Tag, NAMES, DIGESTS),
    PublicKeys: KEYS,
    Roster: ROSTERS,
    Ciphertexts: st.builds(Ciphertexts, NUMBERED),
    Masked: st.builds(Masked, arrays(np.uint32, st.integers(1, 50))),
    Unmasked: st.builds(
        Unmasked, arrays(np.float32, st.integers(1, 9), elements=st.floats(-1, 1, width=32))
    ),
    UnmaskOrder: st.builds(UnmaskOrder, SMALL, IDS, IDS),
    Revealed: st.builds(Revealed, st.dictionaries(NODES, WORDS), st.dictionaries(NODES, WORDS)),
    Refused: st.builds(Refused, st.sampled_from(Refusal)),
    Dealer: st.builds(Dealer, DEALING, st.none() | SEATS),
    DealOrder: st.builds(DealOrder, FOUR, CLIENTS),
    Dealt: st.lists(st.binary(), min_size=4, max_size=4).map(lambda four: Dealt(tuple(four))),
    Work: st.builds(
        Work,
        st.text(max_size=9),
        SMALL,
        FOUR,
        CLIENTS,
        st.dictionaries(st.integers(0, 9), st.binary(), max_size=3),
        LOST,
        POSTS,
    ),
    Progress: st.builds(
        Progress,
        st.booleans(),
        POSTS,
        LOST,
        st.booleans(),
        st.booleans(),
        IDS,
        st.none() | arrays(np.uint64, st.integers(0, 9)),
    ),
    KeptBasis: st.builds(KeptBasis, DIGESTS),
    Growth: st.builds(Growth, SMALL, st.lists(st.binary(), max_size=3).map(tuple)),
    Vouched: st.builds(Vouched, SMALL, st.text(max_size=9)),
}
KINDS = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)


def over_the_wire(content: RecordDict) -> RecordDict:
    """What Flower's own serialisation makes of a message."""
    return recorddict_from_proto(recorddict_to_proto(content))


def same(first: object, second: object) -> bool:
    """Whether two values are written alike, down to the bytes of arrays."""
    one, other = fold(first), fold(second)
    return one.scalars == other.scalars and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(one.arrays.values(), other.arrays.values(), strict=True)
    )


@pytest.mark.slow
@KINDS
@given(data=st.data())
def test_a_message_comes_back_over_the_wire(kind: type, data: st.DataObject) -> None:
    message, header = data.draw(MESSAGES[kind]), data.draw(HEADERS)
    content = over_the_wire(encode(header, message))
    check_header(content, header)
    assert read_header(content) == header
    back = decode(kind, content)
    assert type(back) is kind
    assert same(back, message)
    if kind is not TrainOrder and not hasattr(back, "vector") and kind is not Progress:
        assert back == message


@pytest.mark.slow
@given(ADAPTERS)
def test_an_adapter_comes_back_as_arrays_alone(adapter: AdapterState) -> None:
    back = read_adapter(write_adapter(adapter))
    assert (back.layout, back.basis_hash) == (adapter.layout, adapter.basis_hash)
    assert back.vector_hash == adapter.vector_hash


# What somebody else wrote ------------------------------------------------------------------------

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=100),
)
LISTS = st.one_of(
    st.lists(SMALL, max_size=5),
    st.lists(st.integers(0, 9), max_size=5),
    st.lists(st.binary(max_size=99), max_size=5),
    st.lists(st.text(max_size=3), max_size=5),
    st.lists(st.booleans(), max_size=5),
    st.lists(st.floats(), max_size=5),
)
FORGED = st.builds(
    Array,
    st.sampled_from(["uint32", "float32", "uint8", "object", "nonsense", ""]),
    st.lists(st.integers(-1, 10**12), max_size=3).map(tuple),
    st.sampled_from(["numpy.ndarray", "pickle"]),
    st.binary(max_size=200),
)
HONEST = arrays(
    st.sampled_from([np.uint32, np.float32, np.uint8, np.float64]),
    array_shapes(max_dims=2, max_side=4),
).map(Array)


@pytest.mark.slow
@KINDS
@given(data=st.data())
def test_a_mutated_message_is_read_or_is_a_protocol_error(kind: type, data: st.DataObject) -> None:
    content = over_the_wire(encode(data.draw(HEADERS), data.draw(MESSAGES[kind])))
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(content)))
        record: Any = content[name]
        if isinstance(record, MetricRecord):
            continue
        field = data.draw(st.sampled_from([*sorted(record), "stranger"]))
        other = st.one_of(FORGED, HONEST) if isinstance(record, ArrayRecord) else SCALARS | LISTS
        match data.draw(st.sampled_from(["change", "drop", "kind"])):
            case "change":
                record[field] = data.draw(other)
            case "drop":
                record.pop(field, None)
            case "kind":
                content[name] = MetricRecord({"round": 1})
    for read in (read_header, read_refusal, lambda c: decode(kind, c)):
        with contextlib.suppress(ProtocolError, BoundsError):
            read(content)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["vector", "facts", "basis[]0"]), FORGED | HONEST))
def test_no_arrays_make_reading_an_adapter_raise_anything_else(found: dict[str, Array]) -> None:
    with contextlib.suppress(ProtocolError, BoundsError):
        read_adapter(ArrayRecord(found))


@KINDS
def test_an_empty_message_is_refused(kind: type) -> None:
    for content in (RecordDict(), encode(Header(1, 1)), RecordDict({HEADER: ConfigRecord()})):
        with pytest.raises(ProtocolError):
            decode(kind, content)


@given(FORGED)
def test_a_forged_array_is_never_taken_for_a_masked_vector(forged: Array) -> None:
    content = encode(Header(1, 1), Masked(np.zeros(3, np.uint32)))
    content["Masked.arrays"] = ArrayRecord({PACKED: forged})
    with pytest.raises(ProtocolError):
        take(Masked, content)


def test_a_header_that_promises_more_than_it_brings_is_refused() -> None:
    content = encode(Header(1, 1), Masked(np.zeros(4, np.uint32)))
    honest = content["Masked.arrays"][PACKED]
    (size,) = honest.shape
    longer = honest.data.replace(b"(%d,)" % size, b"(%d,)" % (size + 5))
    content["Masked.arrays"] = ArrayRecord(
        {PACKED: Array("uint8", (size,), "numpy.ndarray", longer)}
    )
    with pytest.raises(ProtocolError, match="cannot be read"):
        take(Masked, content)


@given(st.binary(max_size=99), st.integers(0, 120))
def test_packed_arrays_that_are_none_are_a_protocol_error(junk: bytes, cut: int) -> None:
    content = encode(Header(1, 1), Masked(np.zeros(4, np.uint32)))
    whole = content["Masked.arrays"][PACKED].numpy().tobytes()
    for data in (junk, whole[:cut] if cut < len(whole) else b"", whole + junk + b"x"):
        forged = Array(np.frombuffer(data, np.uint8))
        content["Masked.arrays"] = ArrayRecord({PACKED: forged})
        with pytest.raises(ProtocolError):
            take(Masked, content)


def test_an_adapter_travels_as_one_array_however_many_layers_it_has() -> None:
    """Each array is two objects to Flower, and each object a request on every hop."""
    basis = {f"layer.{n}.A": np.ones((2, 3), np.float32) for n in range(211)}
    adapter = AdapterState(np.zeros(5, np.float32), basis, "a" * 64)
    order = TrainOrder(Header(1, 1), "b" * 32, adapter, 1.0, "c")
    content = encode(order.header, order)
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    assert sum(map(len, records)) == 1
    assert decode(TrainOrder, content).adapter.basis_hash == adapter.basis_hash


@pytest.mark.parametrize("length", [-1, 1, 3, 10**18])
def test_a_length_that_its_items_do_not_have_is_refused(length: int) -> None:
    folded = fold(UnmaskOrder(0, (1, 2), ()))
    folded.scalars["survivors#"] = length
    with pytest.raises(ProtocolError):
        unfold(UnmaskOrder, folded)


def test_one_key_twice_is_refused() -> None:
    folded = fold(Ciphertexts({1: b"a", 2: b"b"}))
    folded.scalars["by_node[keys]"] = [1, 1]
    with pytest.raises(ProtocolError, match="names a key twice"):
        unfold(Ciphertexts, folded)


def test_a_release_that_is_not_finite_is_refused() -> None:
    content = encode(Header(1, 1), Unmasked(np.array([0.0, np.nan], np.float32)))
    with pytest.raises(ProtocolError):
        decode(Unmasked, content)


def test_an_error_about_a_record_never_quotes_it() -> None:
    content = encode(Header(1, 1), Tag("SECRET", "SECRET"), Ciphertexts({1: b"SECRET"}))
    content["Ciphertexts"]["by_node[]"] = "SECRET"
    packed = ArrayRecord({"facts": Array(np.frombuffer(b"SECRET", np.uint8))})
    for read in (
        lambda: decode(Tag, content),
        lambda: decode(Ciphertexts, content),
        lambda: unpack(AdapterState, packed),
    ):
        with pytest.raises(ProtocolError) as caught:
            read()
        assert "SECRET" not in str(caught.value)
