"""What another user of a machine tries at every port: run as a program of its own, with its uid.

Prints what it got beyond refusals, a line each: nothing, if all is well.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 -- Before the uid changes: an interpreter may be root's alone.
import http.client
import os
import ssl
import sys
from pathlib import Path

PATHS = (
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    "/v1/runtime/acquire-task",
    "/v1/control/list-nodes",
)
PROTOBUF = {"content-type": "application/protobuf"}


def asked(port, path):
    """Status and words of a port, over TLS without looking at its certificate, or in plain text."""
    loose = ssl._create_unverified_context()
    for line in (
        http.client.HTTPSConnection("127.0.0.1", int(port), timeout=20, context=loose),
        http.client.HTTPConnection("127.0.0.1", int(port), timeout=20),
    ):
        with contextlib.suppress(OSError, http.client.HTTPException):
            line.request("POST", path, headers=PROTOBUF)
            answer = line.getresponse()
            return answer.status, answer.read()[:80]
    return None


def taken(ports):
    for port in ports:
        for path in PATHS:
            answer = asked(port, path)
            if answer and answer[0] not in (401, 404):
                yield f"{port}{path}: {answer}"


def readable(folders):
    for folder in folders:
        with contextlib.suppress(OSError):
            yield from (f"{folder}: {name}" for name in os.listdir(folder))


def told(pids):
    """What the command lines and environments of others tell."""
    for pid in pids:
        for name in ("environ", "cmdline", "fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/{name}"
                found = os.listdir(path) if name == "fd" else Path(path).read_bytes()
                if name != "cmdline" or secret_in(found):
                    yield f"{path}: {found[:80]!r}"


def secret_in(line):
    """Whether an argument looks like a secret: long, and no path, module or option."""
    words = line.decode(errors="replace").split("\0")
    plain = (w for w in words if len(w) > 30 and not set(w) & set("/ .=("))
    return any(plain)


def main():
    uid, ports, folders, pids = sys.argv[1:5]
    if int(uid) != os.getuid():
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    split = [part.split(",") if part else [] for part in (ports, folders, pids)]
    for line in (*taken(split[0]), *readable(split[1]), *told(split[2])):
        print(line)


if __name__ == "__main__":
    main()
