"""A machine of its own beside this one: a network namespace, with names and units of its own, whose
kernel lets it speak to no more than a unit allows, where that is wanted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

CAN = os.geteuid() == 0 and shutil.which("ip") and shutil.which("mount")
"""Whether this machine can have such a one beside it."""
THERE = "10.77.18.2"
UNITS = Path("/etc/systemd/system")
NAME = "fed.test"
"""Of this machine, as the other one knows it."""


class Elsewhere:
    """Exists while it is entered.

    Parameters
    ----------
    folder:
        Where its names and units lie.
    """

    def __init__(self, folder):
        self._space, self._line = f"fedgrpo-{os.getpid()}", f"fed{os.getpid()}"
        self._etc, self.units = Path("/etc/netns") / self._space, folder / "units"
        self._here = ""
        bound = f'mount --bind {self.units} {UNITS} && exec "$@"'
        self.within = ["ip", "netns", "exec", self._space, "sh", "-c", bound, "sh"]

    def __enter__(self):
        (self.units / "multi-user.target.wants").mkdir(parents=True)
        self._etc.mkdir(parents=True)
        _ip("netns", "add", self._space)
        _ip("link", "add", self._line, "type", "veth", "peer", "eth0", "netns", self._space)
        _ip("link", "set", self._line, "up")
        for link in ("lo", "eth0"):
            _ip("-n", self._space, "link", "set", link, "up")
        _ip("-n", self._space, "address", "add", f"{THERE}/32", "dev", "eth0")
        return self

    def __exit__(self, *_):
        _ip("netns", "delete", self._space)
        shutil.rmtree(self._etc)

    def here_is(self, address):
        """Give this machine an address in the place of the one before, and tell its name there."""
        if self._here:
            _ip("address", "delete", f"{self._here}/24", "dev", self._line)
        self._here = address
        _ip("address", "add", f"{address}/24", "dev", self._line)
        (self._etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")

    def reaches(self, *places):
        """Let it reach these addresses, and no others."""
        _ip("-n", self._space, "route", "flush", "dev", "eth0")
        for place in places:
            _ip("-n", self._space, "route", "add", place, "dev", "eth0", "src", THERE)

    def enable(self, unit):
        """Have systemd know a unit and start it, as far as files say so; returns the addresses of
        this network that it allows.
        """
        for link in (self.units / unit.name, self.units / "multi-user.target.wants" / unit.name):
            link.unlink(missing_ok=True)
            link.symlink_to(unit)
        (allowed,) = re.findall(r"^IPAddressAllow=(.*)$", unit.read_text(), re.MULTILINE)
        return [each for each in allowed.split() if each.startswith("10.77.18.")]


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
