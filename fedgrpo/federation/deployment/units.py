"""Units by which systemd keeps a server or a node running, with as few rights as they need."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_UNIT = """\
# {about}. As root: systemctl enable --now {file}
[Unit]
Description={about}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User={user}
WorkingDirectory={here}
ExecStart={command}
# Not on-failure: a node whose clock is wrong ends without an error of Flower's.
Restart=always
RestartSec=15
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writes}
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
ProtectProc=invisible
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
# A worker that takes too much memory ends alone: the node answers all the same.
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Service:
    """What is to be kept running.

    Attributes
    ----------
    about:
        For people.
    words:
        Of the command, without ``fedgrpo``.
    here:
        Where it is started.
    writes:
        Folders that it writes to; all else is read-only for it.
    """

    about: str
    words: Sequence[str]
    here: Path
    writes: Sequence[Path]


def unit(service: Service, file: Path) -> str:
    """Text of a unit, to be written to a file."""
    command = [sys.executable, "-m", "fedgrpo.cli.app", *service.words]
    return _UNIT.format(
        about=service.about,
        file=file,
        user=getpass.getuser(),
        here=_escaped(str(service.here)),
        command=" ".join(map(_quoted, command)),
        writes=" ".join(_quoted(str(path)) for path in service.writes),
    )


def _quoted(word: str) -> str:
    escaped = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


def _escaped(word: str) -> str:
    return word.replace("%", "%%")
