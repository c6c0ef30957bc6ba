"""Messages come back as they were, and whatever else arrives is a ProtocolError."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedgrpo.federation.wire import messages
from fedgrpo.federation.wire.messages import (
    ADAPTER,
    BODY,
    HEADER,
    MASKED,
    Header,
    TrainOrder,
    UnmaskOrder,
)
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.secure.masking import PublicKeys, Revealed, Roster

NODES = st.integers(1, 2**64 - 1)
"""Flower's node ids are unsigned 64-bit numbers."""
WORDS = st.binary(min_size=32, max_size=32)
KEYS = st.builds(PublicKeys, WORDS, WORDS, WORDS)
HEADERS = st.builds(Header, NODES, st.integers(1, 10**6))


def over_the_wire(content: RecordDict) -> RecordDict:
    """What Flower's own serialisation makes of a message."""
    return recorddict_from_proto(recorddict_to_proto(content))


@given(HEADERS, st.lists(st.tuples(NODES, KEYS), min_size=2, max_size=5, unique_by=lambda m: m[0]))
def test_a_roster_comes_back(header, members):
    nodes, keys = zip(*members, strict=True)
    roster = Roster(header.run_id, header.round, 3, nodes, keys, 2, bytes(range(32)))
    assert messages.read_roster(over_the_wire(messages.write_roster(roster))) == roster


@given(HEADERS, st.dictionaries(NODES, st.binary(min_size=1)))
def test_ciphertexts_come_back(header, ciphertexts):
    content = over_the_wire(messages.write_ciphertexts(header, ciphertexts))
    messages.check_header(content, header)
    assert messages.read_ciphertexts(content) == ciphertexts


@given(HEADERS, st.dictionaries(NODES, WORDS), st.dictionaries(NODES, WORDS))
def test_an_answer_comes_back(header, seeds, keys):
    revealed = Revealed(seeds, keys)
    assert (
        messages.read_revealed(over_the_wire(messages.write_revealed(header, revealed))) == revealed
    )


@given(HEADERS, st.lists(NODES, unique=True), st.lists(NODES, unique=True))
def test_an_unmask_order_comes_back(header, survivors, dropped):
    order = UnmaskOrder(7, tuple(survivors), tuple(dropped))
    assert messages.read_unmask(over_the_wire(messages.write_unmask(header, order))) == order


@given(HEADERS, arrays(np.uint32, st.integers(1, 50)))
def test_a_masked_vector_comes_back(header, masked):
    content = over_the_wire(messages.write_masked(header, masked))
    np.testing.assert_array_equal(messages.read_masked(content, masked.size), masked)


@given(
    arrays(np.float32, st.integers(1, 20), elements=st.floats(-10, 10, width=32)),
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        arrays(
            np.float32,
            array_shapes(max_dims=3, max_side=4),
            elements=st.floats(-1e6, 1e6, width=32),
        ),
    ),
    st.floats(1e-6, 1e6),
)
def test_an_order_comes_back(vector, basis, norm):
    adapter = AdapterState(vector, basis, "c" * 64)
    order = TrainOrder(Header(1, 2), "ab" * 16, adapter, norm, "d" * 64)
    back = messages.read_order(over_the_wire(messages.write_order(order)))
    assert (back.header, back.run) == (order.header, "ab" * 16)
    assert (back.clipping_norm, back.fingerprint) == (norm, "d" * 64)
    assert back.adapter.layout == order.adapter.layout
    assert back.adapter.basis_hash == order.adapter.basis_hash
    np.testing.assert_array_equal(back.adapter.vector, vector)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=100),
)
FIELDS = st.sampled_from(
    [
        "protocol",
        "version",
        "run",
        "round",
        "keys",
        "bucket",
        "threshold",
        "order",
        "members",
        "nodes",
        "ciphertexts",
        "survivors",
        "dropped",
        "seed-shares",
        "key-shares",
        "clipping-norm",
        "settings",
    ]
)
LISTS = st.one_of(
    st.lists(st.integers(0, 9)),
    st.lists(st.binary(max_size=99)),
    st.lists(st.text(max_size=3)),
    st.lists(st.booleans()),
)
CONFIGS = st.dictionaries(FIELDS, st.one_of(SCALARS, LISTS)).map(ConfigRecord)
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
ARRAYS = st.dictionaries(
    st.sampled_from(["vector", "layout", "basis.A"]), st.one_of(FORGED, HONEST)
).map(ArrayRecord)
RECORDS = st.one_of(CONFIGS, ARRAYS, st.just(MetricRecord({"round": 1})))
CONTENTS = st.dictionaries(st.sampled_from([HEADER, BODY, ADAPTER, MASKED]), RECORDS).map(
    RecordDict
)
READERS = {
    "header": messages.read_header,
    "order": messages.read_order,
    "keys": messages.read_keys,
    "roster": messages.read_roster,
    "ciphertexts": messages.read_ciphertexts,
    "masked": lambda content: messages.read_masked(content, 3),
    "unmask": messages.read_unmask,
    "revealed": messages.read_revealed,
}


@pytest.mark.parametrize("name", READERS)
@given(content=CONTENTS)
def test_no_record_makes_reading_raise_anything_but_a_protocol_error(name, content):
    with contextlib.suppress(ProtocolError):
        READERS[name](content)


@given(FORGED)
def test_a_forged_array_is_never_taken_for_a_masked_vector(forged):
    content = RecordDict({MASKED: ArrayRecord({"vector": forged})})
    with pytest.raises(ProtocolError):
        messages.read_masked(content, 10**9)


def test_a_header_that_promises_more_than_it_brings_is_refused():
    honest = Array(np.zeros(4, np.uint32))
    liar = Array("uint32", (4,), "numpy.ndarray", honest.data.replace(b"(4,)", b"(9,)"))
    with pytest.raises(ProtocolError, match="cannot be read"):
        messages.read_masked(RecordDict({MASKED: ArrayRecord({"vector": liar})}), 4)


def test_an_error_about_a_record_never_quotes_it():
    content = RecordDict(
        {HEADER: ConfigRecord(), BODY: ConfigRecord({"keys": "SECRET", "nodes": "SECRET"})}
    )
    for read in (messages.read_keys, messages.read_ciphertexts):
        with pytest.raises(ProtocolError) as caught:
            read(content)
        assert "SECRET" not in str(caught.value)
