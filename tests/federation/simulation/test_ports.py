"""A chosen port is free, and nobody gets it by chance before its server listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fedgrpo.federation.simulation import ports
from fedgrpo.federation.simulation.ports import free_ports


def test_ports_differ_and_can_be_bound() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    for port in found:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_ports(2)
    monkeypatch.setattr(ports, "_RANGE", (taken, free))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_ports(1) == [free]
        with pytest.raises(OSError, match="1 of 2 ports are free"):
            free_ports(2)


def test_no_port_is_chosen_that_the_system_gives_to_others() -> None:
    system = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(system.read_text().split()[0]) if system.exists() else 0
    if lowest < 32_768:
        pytest.skip("this system's range is not Linux's usual one")
    assert max(free_ports(50)) < lowest
