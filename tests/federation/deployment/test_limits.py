"""Limits of size, pace and repetition, without a server."""

from __future__ import annotations

import asyncio

import pytest

from fedgrpo.federation.deployment.gateway import bodies, roster
from fedgrpo.federation.deployment.gateway.rates import (
    MOST_SEEN,
    MOST_SENDERS,
    InFlight,
    Once,
    Rate,
    Rates,
)
from fedgrpo.federation.deployment.gateway.refused import RefusedError


def source(*events):
    """An ASGI ``receive`` that says these, and then nothing for ever."""
    waiting = list(events)

    async def receive():
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(3600)

    return receive


def piece(body, *, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def read(size, *events):
    return asyncio.run(bodies.whole(source(*events), size))


def test_a_body_comes_whole_however_it_is_cut():
    assert read(6, piece(b"ab"), piece(b""), piece(b"cdef", more=False)) == b"abcdef"
    assert read(0) == b""


def test_more_than_was_declared_is_not_read():
    assert read(3, piece(b"abcdef")) == b"abc"


@pytest.mark.parametrize("event", [piece(b"a", more=False), {"type": "http.disconnect"}])
def test_a_body_that_breaks_off_is_refused(event):
    with pytest.raises(RefusedError, match="broke off"):
        read(6, piece(b"ab"), event)


def test_a_body_that_stays_out_is_refused(monkeypatch):
    monkeypatch.setattr(bodies, "START_S", 0.05)
    with pytest.raises(RefusedError, match="slowly") as raised:
        read(6, piece(b"ab"))
    assert raised.value.status == 408


@pytest.mark.parametrize(
    "said", [b"", b"-1", b"+1", b"1 ", b"0x10", b"1e3", "¹".encode(), b"1,1", b"\xb2"]
)
def test_a_size_that_is_none_is_refused(said):
    with pytest.raises(RefusedError) as raised:
        bodies.declared_size({b"content-length": said}, 100)
    assert raised.value.status == 411


def test_chunks_are_refused_whatever_size_is_said():
    with pytest.raises(RefusedError):
        bodies.declared_size({b"content-length": b"1", b"transfer-encoding": b"chunked"}, 100)


@pytest.mark.parametrize("size", [101, 10**17, 10**40])
def test_a_size_above_the_limit_is_refused(size):
    with pytest.raises(RefusedError) as raised:
        bodies.declared_size({b"content-length": str(size).encode()}, 100)
    assert raised.value.status == 413
    assert bodies.declared_size({b"content-length": b"100"}, 100) == 100


def test_a_bucket_empties_and_fills_again():
    rates = Rates(Rate(a_second=2, at_once=3))
    for _ in range(3):
        rates.take("a", 0.0)
    with pytest.raises(RefusedError):
        rates.take("a", 0.1)
    rates.take("b", 0.1)
    rates.take("a", 0.6)
    with pytest.raises(RefusedError):
        rates.take("a", 0.7)
    for _ in range(3):
        rates.take("a", 1000.0)
    with pytest.raises(RefusedError):
        rates.take("a", 1000.0)


@pytest.mark.parametrize("answer", ["none", "refused"])
def test_of_all_who_wait_for_a_superlink_that_does_not_answer_one_asks(monkeypatch, answer):
    """And they hear so at once, in the place of one after the other."""
    monkeypatch.setattr(roster, "PATIENCE_S", 0.2)
    asked = []

    async def ask():
        asked.append(1)
        if answer == "refused":
            raise RefusedError(503, "gone")
        await asyncio.sleep(3600)

    async def all_at_once():
        nodes = roster.Roster(ask)
        waiting = [nodes.node(b"key%d" % number) for number in range(20)]
        async with asyncio.timeout(10):
            return await asyncio.gather(*waiting, return_exceptions=True)

    refused = asyncio.run(all_at_once())
    assert {(type(error), error.status) for error in refused} == {(RefusedError, 503)}
    assert asked == [1]


def test_a_million_senders_need_no_more_memory_than_some():
    rates = Rates(Rate(a_second=1, at_once=1))
    for sender in range(10 * MOST_SENDERS):
        rates.take(sender, 0.0)
    assert len(rates._buckets) <= MOST_SENDERS


def test_a_sender_has_some_requests_under_way_and_no_more():
    under_way = InFlight(2)
    with under_way.one("a"), under_way.one("a"):
        with pytest.raises(RefusedError), under_way.one("a"):
            raise NotImplementedError
        with under_way.one("b"):
            pass
    with under_way.one("a"):
        assert len(under_way._under_way) == 1
    assert not under_way._under_way


def test_what_was_shown_is_refused_while_it_could_serve():
    once = Once(10.0)
    once.show("a", 0.0)
    with pytest.raises(RefusedError):
        once.show("a", 9.0)
    once.show("b", 9.0)
    once.show("a", 11.0)
    with pytest.raises(RefusedError):
        once.show("b", 11.0)


def test_what_was_shown_is_bounded():
    once = Once(1e9)
    for number in range(MOST_SEEN + 50):
        once.show(number, 0.0)
    assert len(once._seen) <= MOST_SEEN + 1


def test_bytes_are_counted_by_their_number():
    rates = Rates(Rate(a_second=10, at_once=100))
    rates.take("site", 0.0, 60, "bytes")
    with pytest.raises(RefusedError, match="bytes a second"):
        rates.take("site", 1.0, 60, "bytes")
    rates.take("other", 1.0, 100, "bytes")
    rates.take("site", 1.0, 50, "bytes")
