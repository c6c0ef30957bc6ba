"""One machine's connections, however many, do not keep others out."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest

from fedgrpo.federation.deployment.gateway import door
from fedgrpo.federation.deployment.gateway.door import neighbourhood
from fedgrpo.federation.deployment.gateway.rates import Rate
from tests.federation.certificates import superlink_files
from tests.federation.deployment.operated import heard, parts, until, written
from tests.federation.deployment.test_listening import listening_gateway

STRANGER, NODE = "127.0.0.2", "127.0.0.1"
HELLO = written(b"/hello", b"GET")


@pytest.fixture
def gateway(tmp_path):
    """Its port, and what trusts it; started by the test, under its own limits."""
    files = superlink_files(tmp_path)

    @contextlib.contextmanager
    def started():
        with listening_gateway(files) as port:
            yield port, ssl.create_default_context(cafile=str(files[0]))

    return started


def connect(gateway, source):
    return socket.create_connection(("127.0.0.1", gateway[0]), 10, (source, 0))


def ask(gateway, source):
    """Ask for ``/hello`` from an address: the status, 0 where the door was closed."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as held:
        plain = held.enter_context(connect(gateway, source))
        line = held.enter_context(gateway[1].wrap_socket(plain, server_hostname="localhost"))
        line.sendall(HELLO)
        return parts(heard(line))[0]
    return 0


def turned_away(line):
    line.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        return line.recv(1) == b""
    return False


def test_one_address_that_holds_connections_shuts_out_itself_alone(gateway, monkeypatch):
    monkeypatch.setattr(door, "AT_ONCE", 4)
    with gateway() as opened:
        lines = [connect(opened, STRANGER) for _ in range(12)]
        assert ask(opened, NODE) == 200
        assert ask(opened, STRANGER) == 0
        assert sum(map(turned_away, lines)) == 8
        for line in lines:
            line.close()
        until(lambda: ask(opened, STRANGER) == 200, "a place that was given back", patience_s=20)


def test_one_address_that_connects_anew_all_the_time_shuts_out_itself_alone(gateway, monkeypatch):
    monkeypatch.setattr(door, "ANEW", Rate(0.001, 3))
    with gateway() as opened:
        closed = 0
        for _ in range(10):
            with connect(opened, STRANGER) as line:
                closed += turned_away(line)
        assert closed == 7
        assert ask(opened, NODE) == 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("a socket", "a socket", True),
    ],
)
def test_addresses_that_one_party_has_count_as_one(one, other, same):
    assert (neighbourhood(one) == neighbourhood(other)) == same
