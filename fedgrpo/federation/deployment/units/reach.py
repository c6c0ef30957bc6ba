"""Whom a node must reach, so that the kernel can keep it from everybody else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

_RESOLVERS = Path("/etc/resolv.conf")


def addresses_of(places: Iterable[str]) -> list[str]:
    """Addresses that this machine has for ``HOST:PORT`` places, each once; none for a name that is
    not known here.
    """
    return list(dict.fromkeys(found for place in places for found in _looked_up(place)))


def _looked_up(place: str) -> Iterator[str]:
    host = place.rpartition(":")[0].strip("[]")
    try:
        for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
            # An address of this link alone has the link's name behind it.
            yield str(address[0]).partition("%")[0]
    except OSError:
        return


def resolvers(file: Path = _RESOLVERS) -> list[str]:
    """Addresses of those whom this machine asks for names."""
    try:
        lines = file.read_text("ascii", "replace").splitlines()
    except OSError:
        return []
    named = [words[1] for line in lines if (words := line.split())[:1] == ["nameserver"]]
    return [address for name in named if (address := _address(name.partition("%")[0]))]


def _address(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return ""
