"""The gateway without a SuperLink behind it, in this process: patience, pace, and words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from fedgrpo.federation.deployment.gateway import serve
from fedgrpo.federation.deployment.gateway.app import STRANGER, Gateway
from fedgrpo.federation.deployment.gateway.enrolment.book import Book
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.serve import listen, server
from fedgrpo.ground.errors import RunError
from tests.federation.certificates import superlink_files
from tests.federation.deployment.operated import ROOT, heard, one, parts, written

GONE = "127.0.0.1:9"


@pytest.fixture
def files(tmp_path):
    return superlink_files(tmp_path)


@pytest.fixture
def port(files, monkeypatch):
    """A gateway that waits a fraction of a second for a request's head."""
    monkeypatch.setattr(serve, "HEAD_S", 0.4)
    with listening_gateway(files) as port:
        yield port


def closed(files):
    """A gateway of a server that has invited nobody. Nothing is behind it."""
    return Gateway(Inner(GONE, str(files[0]), "secret"), Book(Path(files[0]).parent))


@contextlib.contextmanager
def listening_gateway(files):
    gateway = server(closed(files), files[1], files[2])
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=gateway.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        gateway.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def connect(port, files):
    trust = ssl.create_default_context(cafile=str(files[0]))
    line = socket.create_connection(("127.0.0.1", port), 20)
    return trust.wrap_socket(line, server_hostname="localhost")


HEAD = b"POST /v1/fleet/pull-messages HTTP/1.1\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("begun", [b"", b"P", HEAD, HEAD + b"host: x\r\nx: "])
def test_who_never_ends_a_request_is_hung_up_on(port, files, begun):
    with connect(port, files) as line:
        if begun:
            line.sendall(begun)
        assert heard(line) == b""


def test_a_body_that_nobody_wants_is_not_waited_for(port, files):
    raw = written(b"/nowhere", body=b"x" * 1000, keep=True)[:-500]
    with connect(port, files) as line:
        line.sendall(raw)
        assert parts(heard(line))[0] == 404


def test_a_second_request_that_never_ends_is_hung_up_on_too(port, files):
    with connect(port, files) as line:
        line.sendall(written(b"/nowhere", b"GET", keep=True))
        assert one(line) == (404, False)
        line.sendall(HEAD)
        assert heard(line) == b""


def test_requests_in_a_row_are_answered_in_a_row(port, files):
    with connect(port, files) as line:
        for _ in range(30):
            line.sendall(written(b"/hello", b"GET", keep=True))
            assert one(line) == (200, False)


def asked(gateway, path, headers=()):
    """Status and words of a request, without a network."""
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
        "headers": headers, "query_string": b"", "client": ("192.0.2.1", 5),
    }  # fmt: skip
    said = []

    async def send(message):
        said.append(message)

    async def receive():
        await asyncio.sleep(3600)

    asyncio.run(gateway(scope, receive, send))
    return said[0]["status"], said[1]["body"]


def test_too_many_guesses_from_an_address_are_slowed_down(files):
    gateway = closed(files)
    statuses = [asked(gateway, "/v1/fleet/pull-messages")[0] for _ in range(2 * STRANGER.at_once)]
    assert statuses[: STRANGER.at_once] == [401] * STRANGER.at_once
    assert statuses.count(429) > 50
    assert asked(gateway, "/docs")[0] == 404


def test_a_superlink_that_is_not_there_is_told_in_words(files):
    headers = [
        (b"flwr-public-key", b"AAAA"), (b"flwr-timestamp", b"x"), (b"flwr-signature", b"AAAA"),
    ]  # fmt: skip
    gateway = closed(files)
    status, body = asked(gateway, "/v1/fleet/pull-messages", headers)
    assert status == 503
    assert "does not answer" in json.loads(body)["detail"]


def test_a_port_that_is_taken_and_a_certificate_that_is_none_are_told_in_words(files, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(RunError, match="cannot listen") as raised:
            listen("127.0.0.1", taken.getsockname()[1])
        assert "--port" in raised.value.cure
    (tmp_path / "none.pem").write_text("none")
    for certificate in (tmp_path / "none.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(RunError, match="cannot be used"):
            server(_nothing, certificate, files[2])


async def _nothing(scope, receive, send):
    raise NotImplementedError


def test_a_handshake_by_older_tls_fails(port, files):
    trust = ssl.create_default_context(cafile=str(files[0]))
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", port), 20) as line,
        contextlib.suppress(ConnectionError),
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        trust.wrap_socket(line, server_hostname="localhost")


def test_the_documented_certificates_are_taken_on_both_sides(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    blocks = (ROOT / "docs" / "deployment.md").read_text().split("```bash\n")
    (recipe,) = (block.partition("```")[0] for block in blocks if block.startswith("openssl"))
    commands = recipe.replace("fed.example", "localhost")
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True)
    ca, certificate, key = (tmp_path / name for name in ("ca.crt", "server.pem", "server.key"))
    with listening_gateway((ca, certificate, key)) as port, connect(port, [ca]) as line:
        assert line.version() == "TLSv1.3"
