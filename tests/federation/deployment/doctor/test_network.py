"""The way to the server: every step of it seen broken on loopback, in words and with a cure."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from starlette.responses import PlainTextResponse

from fedgrpo.federation.deployment.doctor import line as way
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.simulation.ports import free_ports
from tests.federation.certificates import superlink_files
from tests.federation.deployment.doctor.surrounded import Door, found, invitation


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    with Door(tmp_path_factory.mktemp("door")) as door:
        yield door


def seen(port, ca, **changed):
    return Surroundings(invitation(port, ca, **changed))


def test_a_server_that_is_right_is_green_in_every_step(door):
    here = seen(door.port, door.ca)
    for number in (1, 2, 3, 4, 5, 6, 8, 19):
        assert list(found(here, number)) == [""], found(here, number)
    assert "issued by root" in found(here, 4)[""]


def test_a_name_that_nobody_knows(door):
    here = seen(1, door.ca, server="no.such.host.invalid:8443")
    said = found(here, 2)["name-unknown"]
    assert "no.such.host.invalid" in said
    assert "getent hosts" in said
    assert list(found(here, 3)) == ["after-others"]


def test_a_port_at_which_nobody_listens(door):
    (port,) = free_ports(1)
    said = found(seen(port, door.ca), 3)["port-refused"]
    assert str(port) in said
    assert "ask the operator" in said


def test_a_port_that_a_firewall_swallows_is_named_with_its_address(door, monkeypatch):
    """A listener whose queue is full answers as a firewall does that drops what comes: not."""
    monkeypatch.setattr(way, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        said = found(seen(1, door.ca, server=f"127.0.0.1:{port}"), 3)["port-blocked"]
        for each in waiting:
            each.close()
    assert f"TCP 127.0.0.1 port {port} (outbound)" in said


def test_a_certificate_of_somebody_else_is_named_with_its_issuer(door, tmp_path):
    other, _, _ = superlink_files(tmp_path)
    here = seen(door.port, other)
    said = found(here, 4)["certificate-foreign"]
    assert "issued by root, SHA-256 " in said
    assert "do not go on" in said
    assert list(found(here, 5)) == ["after-others"]


@pytest.mark.parametrize(
    ("code", "certificate", "cure"),
    [
        ("certificate-expired", {"ends_in": timedelta(minutes=-1)}, "server renew"),
        ("certificate-early", {"begins_in": timedelta(minutes=9)}, "timedatectl"),
        ("certificate-name", {"name": "fed.example"}, "fed.example, 127.0.0.1, not for localhost"),
        ("certificate-ends", {"ends_in": timedelta(days=2)}, "server renew"),
    ],
)
def test_a_certificate_that_is_not_right(code, certificate, cure, tmp_path):
    with Door(tmp_path, **certificate) as door:
        assert cure in found(seen(door.port, door.ca), 4)[code]


def test_a_root_certificate_that_is_none(door, tmp_path):
    here = seen(door.port, None)
    given = here.given.model_copy(update={"ca": str(tmp_path / "nowhere.crt")})
    here = replace(here, given=given)
    assert "nowhere.crt" in found(here, 4)["ca-unreadable"]
    assert "localhost is 127.0.0.1" in found(here, 2)[""].replace("::1, ", "")
    assert list(found(here, 5)) == ["after-others"]


def test_a_port_that_speaks_plain_text(door):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def serve():
            for _ in range(2):  # One connection is only tried.
                guest, _ = plain.accept()
                with guest:
                    guest.recv(1000)
                    guest.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        here = seen(plain.getsockname()[1], door.ca)
        said = found(here, 5)["plain-text"]
        thread.join()
    assert "without TLS" in said
    assert list(found(here, 4)) == ["after-others"]


def test_a_server_of_another_kind(tmp_path):
    with Door(tmp_path, PlainTextResponse("It works!")) as other:
        said = found(seen(other.port, other.ca), 5)["not-fedgrpo"]
    assert "HTTP 200" in said
    assert "check host and port" in said


def test_a_server_that_cannot_serve(tmp_path):
    with Door(tmp_path, PlainTextResponse("down", 503)) as other:
        assert "tell the operator" in found(seen(other.port, other.ca), 5)["server-unwell"]


@pytest.mark.parametrize(
    ("off_s", "code"),
    [(12.0, "clock-fast"), (-400.0, "clock-slow"), (3.0, "clock-drifts"), (0.0, "")],
)
def test_a_clock_is_held_against_the_servers(door, off_s, code):
    here = replace(seen(door.port, door.ca), clock=lambda: time.time() + off_s)
    said = found(here, 6)
    assert list(said) == [code]
    assert not code or "timedatectl set-ntp true" in said[code]


def test_a_proxy_that_would_catch_the_server_and_breaks_the_way(door, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:password@127.0.0.1:{port}")
    here = seen(door.port, door.ca)
    said = found(here, 19)["proxy-breaks"]
    assert "HTTPS_PROXY sends what is for localhost through 127.0.0.1" in said
    assert "NO_PROXY=localhost" in said
    assert "password" not in said
    assert list(found(here, 3)) == ["after-others"]
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert list(found(seen(door.port, door.ca), 19)) == [""]


def test_an_invitation_that_somebody_has_used_or_that_is_not_known(door):
    door.invite("hospital-b")
    here = seen(door.port, door.ca, site="hospital-b")
    assert list(found(here, 8)) == [""]
    door.book.change("hospital-b", lambda site: site.model_copy(update={"used_by": "a key"}))
    said = found(here, 8)["invitation-used"]
    assert "was used" in said
    assert "telephone the operator" in said
    stranger = seen(door.port, door.ca, token="x" * 43)
    assert "not known here" in found(stranger, 8)["invitation-used"]
