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
from tests.federation.deployment.operated import heard, parts, written
from tests.federation.deployment.test_listening import listening_gateway

STRANGER, NODE = "127.0.0.2", "127.0.0.1"
HELLO = written(b"/hello", b"GET")


@pytest.fixture
def knock(tmp_path):
    """Ask for ``/hello`` from an address; status, 0 if the door was closed."""
    files = superlink_files(tmp_path)
    with listening_gateway(files) as port, contextlib.ExitStack() as held:
        trust = ssl.create_default_context(cafile=str(files[0]))

        def connect(source):
            line = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
            return held.enter_context(line)

        def ask(source):
            with contextlib.suppress(OSError):
                with trust.wrap_socket(connect(source), server_hostname="localhost") as line:
                    line.sendall(HELLO)
                    return parts(heard(line))[0]
            return 0

        ask.connect = connect
        yield ask


def test_one_address_that_holds_connections_shuts_out_itself_alone(knock, monkeypatch):
    monkeypatch.setattr(door, "AT_ONCE", 4)
    lines = [knock.connect(STRANGER) for _ in range(40)]
    assert knock(NODE) == 200
    assert knock(STRANGER) == 0
    for line in lines:
        line.close()
    assert any(knock(STRANGER) == 200 for _ in range(100)), "places are not given back"


def test_one_address_that_connects_anew_all_the_time_shuts_out_itself_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "ANEW", Rate(0.001, 3))
    files = superlink_files(tmp_path)
    with listening_gateway(files) as port:
        closed = 0
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port), 10, (STRANGER, 0)) as line:
                line.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    closed += line.recv(1) == b""
        assert closed == 7
        trust = ssl.create_default_context(cafile=str(files[0]))
        with trust.wrap_socket(
            socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost"
        ) as line:
            line.sendall(HELLO)
            assert parts(heard(line))[0] == 200


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
