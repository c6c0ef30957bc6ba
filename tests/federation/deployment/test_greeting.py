"""Before a node starts it greets its server: whatever is wrong is said in words, with a cure."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedgrpo.federation.deployment.site import greeting
from fedgrpo.federation.deployment.site.greeting import greet
from fedgrpo.ground.errors import RunError, VersionError
from tests.federation.certificates import superlink_files
from tests.federation.deployment.operated import until

pytestmark = [pytest.mark.flower, pytest.mark.timeout(300)]


def key_file(folder, key):
    (folder / "node.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    return folder / "node.key"


@pytest.fixture
def key(site, tmp_path):
    return key_file(tmp_path, site[0])


def refused(server, root, key):
    with pytest.raises(RunError) as raised:
        greet(server, root, key)
    assert raised.value.cure
    return raised.value.problem


def test_the_right_server_is_greeted(server, site, key):
    def greeted():
        with contextlib.suppress(RunError):
            greet(f"localhost:{server.port}", server.ca, key)
            return True

    until(greeted)


def test_a_key_that_the_operator_has_not_registered(server, tmp_path):
    stranger = key_file(tmp_path, ec.generate_private_key(ec.SECP384R1()))
    assert "not registered" in refused(server.address, server.ca, stranger)


def test_another_authority_than_the_operators(server, key, tmp_path):
    other, _, _ = superlink_files(tmp_path)
    assert "does not vouch" in refused(server.address, other, key)


def test_a_name_that_the_certificate_is_not_for(server, key):
    said = refused(f"127.0.0.2:{server.port}", server.ca, key)
    assert "does not vouch" in said or "cannot be reached" in said


def test_a_root_certificate_that_is_none(server, key, tmp_path):
    (tmp_path / "ca.crt").write_text("none")
    for root in (tmp_path / "ca.crt", tmp_path / "nowhere.crt"):
        assert "cannot be read" in refused(server.address, root, key)


def test_nobody_there(server, key):
    assert "cannot be reached" in refused("localhost:9", server.ca, key)
    assert "cannot be reached" in refused("no.such.host.example:1", server.ca, key)


def test_a_port_that_speaks_plain_text(server, key):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def serve():
            line, _ = plain.accept()
            with line:
                line.recv(1000)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        said = refused(f"127.0.0.1:{plain.getsockname()[1]}", server.ca, key)
        thread.join()
    assert "TLS" in said


def test_an_address_that_is_none(server, key):
    assert refused("host:port", server.ca, key)


def test_a_key_of_the_wrong_kind_and_a_key_that_is_none(server, tmp_path):
    wrong = key_file(tmp_path, ed25519.Ed25519PrivateKey.generate())
    assert "of a kind" in refused(server.address, server.ca, wrong)
    (tmp_path / "none.key").write_text("none")
    for key in (tmp_path / "none.key", tmp_path / "nowhere.key"):
        assert "cannot be read" in refused(server.address, server.ca, key)


def test_another_version(server, key, monkeypatch):
    monkeypatch.setattr(greeting, "VERSION", "9.9.9")
    with pytest.raises(VersionError, match=r"9\.9\.9"):
        greet(server.address, server.ca, key)
