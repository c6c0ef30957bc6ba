"""What starts the node again: a unit of systemd, or a container's engine."""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fedgrpo.federation.deployment.doctor.finding import Finding, Findings, fine, trouble
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Moment, Surroundings

_NODE = re.compile(r'^ExecStart=.*\bfedgrpo(\.cli\.app)?"?\s+"?node\b', re.MULTILINE)
_ROOT = ("root", "0")


@check(20, "service")
def service(here: Surroundings) -> Findings:
    """That the node is started with the machine, always again, and not by root."""
    if not here.site:
        yield fine("looked at once this site has joined")
        return
    units = list(_units(here))
    for folder, file in units:
        wrong = list(_unit(here, folder, file))
        yield from wrong
        if not wrong:
            yield fine(f"{file.name} starts it, and starts it again")
    if not units:
        yield from _without_unit(here)


def _units(here: Surroundings) -> Iterator[tuple[Path, Path]]:
    """Folders and files of units that run a node."""
    for folder in here.machine.units:
        for file in sorted(folder.glob("*.service")):
            if _NODE.search(_text(file)):
                yield folder, file


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _unit(here: Surroundings, folder: Path, file: Path) -> Iterator[Finding]:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(_text(file))
    own = dict(unit["Service"]) if unit.has_section("Service") else {}
    if not any(any(each.glob(f"*.wants/{file.name}")) for each in here.machine.units):
        yield trouble("service-disabled", unit=file.name)
    if (restart := own.get("Restart", "no")) != "always":
        yield trouble("service-once", unit=file.name, restart=restart)
    of_a_user = folder == here.machine.units[-1] or own.get("DynamicUser") in ("yes", "true")
    if not of_a_user and own.get("User", "root") in _ROOT:
        yield trouble("service-root", what=f"service {file.name}")
    yield from _moved(here, file)


def _moved(here: Surroundings, file: Path) -> Iterator[Finding]:
    """Addresses of the server that the unit does not let the node speak to."""
    allowed = " ".join(re.findall(r"^IPAddressAllow=(.*)$", _text(file), re.MULTILINE)).split()
    addresses = here.line.addresses if here.line else ()
    if allowed and addresses and not any(_covers(each, a) for each in allowed for a in addresses):
        host = here.line.host if here.line else ""
        listed, found = ", ".join(allowed), ", ".join(addresses)
        yield trouble("address-moved", host=host, addresses=found, allowed=listed, unit=file.name)


def _covers(allowed: str, address: str) -> bool:
    named = {"localhost": "127.0.0.0/8", "any": "0.0.0.0/0"}
    try:
        network = ipaddress.ip_network(named.get(allowed, allowed), strict=False)
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


def _without_unit(here: Surroundings) -> Findings:
    if here.moment is not Moment.ASKED and os.geteuid() == 0:
        yield trouble("service-root", what="this node")
    if any(file.exists() for file in here.machine.containers):
        yield fine("in a container, whose engine starts it again")
    else:
        yield trouble("service-none")
