"""``fedgrpo server`` as a process, and nodes that speak to it byte by byte."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import (
    RegisterNodeRequest,
    RegisterNodeResponse,
    UnregisterNodeRequest,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from fedgrpo.federation.simulation.ports import free_ports
from tests.federation.certificates import superlink_files

ROOT = Path(__file__).parents[3]
PATIENCE_S = 240
PROTOBUF = "application/protobuf"


def environment():
    """Of the commands: they run elsewhere, and find this very package."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return os.environ | local | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def fedgrpo(log, *words, cwd):
    """Start one of fedgrpo's commands, in a session of its own."""
    command = [sys.executable, "-m", "fedgrpo.cli.app", *map(str, words)]
    with log.open("ab") as out:
        return subprocess.Popen(
            command, env=environment(), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip


def end(process):
    """As an operator or systemd does; then without mercy."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def until(reached, what="it", patience_s=PATIENCE_S):
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + patience_s
    while not (found := reached()):
        assert time.monotonic() < deadline, f"{what} took too long"
        time.sleep(0.1)
    return found


def libraries(process, word):
    """Files of a living process's memory with a word in their names."""
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in maps if word in line}


class Server:
    """A server on loopback, with what belongs to its operator and what lies at strangers' hands."""

    def __init__(self, folder, *words):
        self.folder, self.state, self.log = folder, folder / "state", folder / "server.log"
        self.ca, self.certificate, self.key = superlink_files(folder)
        (self.port,) = free_ports(1)
        self.words = words

    def __enter__(self):
        self.process = fedgrpo(
            self.log, "server", self.state, "--certificate", self.certificate, "--key", self.key,
            "--host", "127.0.0.1", "--port", self.port, *self.words, cwd=self.folder,
        )  # fmt: skip
        until(self._is_there, f"the server: {self.log.read_text()[-3000:]}")
        return self

    def __exit__(self, *_):
        end(self.process)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def inner(self):
        """Address of the SuperLink, and the secret that opens it: the operator's, mode 0600."""
        named = json.loads((self.state / "flwr" / "credentials.yaml").read_text())
        (key,) = (name for name in named if name.endswith("oidc-access-token"))
        address = key.removeprefix("flower.account-auth.").removesuffix(".oidc-access-token")
        return address, base64.b64decode(named[key]).decode()

    def _is_there(self):
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(OSError, httpx.HTTPError):
            return self.control("list-nodes", b"").status_code == 200

    def control(self, name, body):
        """Ask the SuperLink what only the operator may."""
        address, bearer = self.inner
        trust = ssl.create_default_context(cafile=str(self.state / "inner.pem"))
        with httpx.Client(verify=trust, trust_env=False, timeout=60) as client:
            headers = {"authorization": f"Bearer {bearer}", "content-type": PROTOBUF}
            return client.post(
                f"https://{address}/v1/control/{name}", content=body, headers=headers
            )

    def register(self):
        """A new node: its key, and the id that the SuperLink gives it."""
        key = ec.generate_private_key(ec.SECP384R1())
        asked = RegisterNodeRequest(public_key=public_key_to_bytes(key.public_key()))
        answer = self.control("register-node", asked.SerializeToString())
        assert answer.status_code == 200, answer.text
        return key, RegisterNodeResponse.FromString(answer.content).node_id

    def revoke(self, node):
        body = UnregisterNodeRequest(node_id=node).SerializeToString()
        assert self.control("unregister-node", body).status_code == 200

    def connect(self, timeout=30, **versions):
        """A TLS connection from outside."""
        trust = ssl.create_default_context(cafile=str(self.ca))
        for name, version in versions.items():
            setattr(trust, name, version)
        return trust.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), timeout), server_hostname="localhost"
        )

    def say(self, raw, timeout=60):
        """Send bytes as they are, and return all that comes until the server is silent or gone."""
        with self.connect(timeout) as line:
            with contextlib.suppress(OSError):
                line.sendall(raw)
            return heard(line)

    def ask(self, target, method=b"POST", headers=(), body=b"", version=b"HTTP/1.1"):
        """A request with any target, byte by byte; returns status and body."""
        return parts(self.say(written(target, method, headers, body, version)))

    def statuses(self, requests):
        """Statuses of many requests, on as few connections as the server allows; 0 for none."""
        line, found = self.connect(), []
        for raw in requests:
            try:
                line.sendall(raw)
                status, closed = one(line)
            except OSError:
                status, closed = 0, True
            found.append(status)
            if closed:
                line.close()
                line = self.connect()
        line.close()
        return found

    def fleet(self, name, key, message, **signing):
        """What a node asks, signed by a key."""
        headers = [(n.encode(), v.encode()) for n, v in signed(key, **signing).items()]
        body = message.SerializeToString()
        return self.ask(f"/v1/fleet/{name}".encode(), headers=headers, body=body)


def one(line):
    """Read one answer: its status, and whether the server will close the connection."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = line.recv(1 << 16)
        if not piece:
            return 0, True
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    named = {
        line.split(b":")[0].lower(): line.split(b":")[1].strip() for line in head.split(b"\r\n")[1:]
    }
    while len(body) < int(named.get(b"content-length", 0)):
        body += line.recv(1 << 16)
    return int(head.split(b" ")[1]), named.get(b"connection") == b"close"


def written(target, method=b"POST", headers=(), body=b"", version=b"HTTP/1.1", *, keep=False):
    head = [b"%s %s %s" % (method, target, version), b"host: x"]
    head += [] if keep else [b"connection: close"]
    if method == b"POST":
        head += [b"content-type: application/protobuf", b"content-length: %d" % len(body)]
    head += [b"%s: %s" % pair for pair in headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def heard(line):
    found = b""
    with contextlib.suppress(OSError):
        while piece := line.recv(1 << 16):
            found += piece
    return found


def parts(answer):
    """Status and body of an answer; status 0 where there is none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]), body) if head.startswith(b"HTTP/1.1 ") else (0, answer)


def signed(key, ahead_s=0.0):
    """A node's credentials."""
    now = (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat()
    public, signature = public_key_to_bytes(key.public_key()), sign_message(key, now.encode())
    return {
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-timestamp": now,
        "flwr-signature": base64.b64encode(signature).decode(),
    }
