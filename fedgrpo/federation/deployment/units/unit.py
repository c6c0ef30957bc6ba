"""Units by which systemd keeps a server or a node running, with as few rights as they need.

Adversary: whoever gets code of his own into the process that reads prompts. The kernel then lets
it write to the site's folder and speak to the server, its committee and the resolver, and to nobody
else.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STATE = Path("/var/lib")
"""Folder of systemd's for what services keep."""
_MEBIBYTE = 2**20

_KEPT = """\
# Not on-failure: a node whose clock is wrong ends without an error of Flower's.
Restart=always
RestartSec=15
# It says when it has started, and then that it is well. One that hangs is killed and begins anew.
Type=notify
TimeoutStartSec=infinity
WatchdogSec=60
# The supervisor ends its processes in order; what is left then is killed.
KillMode=mixed
# A worker that takes too much memory ends alone: the node answers all the same.
OOMPolicy=continue
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
# Namespaces of these kinds alone, in which rewards have no network.
RestrictNamespaces=user net
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
"""
"""For every unit."""
_BY_ROOT = """\
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RemoveIPC=yes
ProtectProc=invisible
"""
"""What a user's own systemd may not do."""
_OFFLINE = """\
# The kernel lets it speak to nobody but the server, the committee and who knows their addresses.
# Has one moved? Write its new address here, or let 'fedgrpo join' do so, with a good invitation.
IPAddressDeny=any
IPAddressAllow={reach}
Environment=HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
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
    reads:
        Files and folders in those that it must not change.
    keys:
        Private keys by the names under which it finds copies, in a folder that systemd makes for
        it; it does not see the files themselves.
    reach:
        Addresses that it may speak to, besides this machine's own; None for all.
    memory:
        Most bytes that it may take; 0 for no limit.
    """

    about: str
    words: Sequence[str]
    here: Path
    writes: Sequence[Path]
    reads: Sequence[Path] = ()
    keys: Mapping[str, Path] = field(default_factory=dict)
    reach: Sequence[str] | None = None
    memory: int = 0


def unit(service: Service, file: Path) -> str:
    """Text of a unit that root starts, to be written to a file."""
    own = [f"User={getpass.getuser()}\n", _BY_ROOT, *_places(service), *_kept_keys(service)]
    if service.reach is not None:
        own.append(_OFFLINE.format(reach=" ".join(["localhost", *service.reach])))
    return _unit(service, file, own, by="as root: systemctl", target="multi-user.target")


def user_unit(service: Service, file: Path) -> str:
    """Text of a unit for where there is no root: files, keys and network are then guarded by the
    user's own rights alone.
    """
    by = "loginctl enable-linger; systemctl --user"
    return _unit(service, file, [], by=by, target="default.target")


def _unit(service: Service, file: Path, own: Sequence[str], *, by: str, target: str) -> str:
    command = [sys.executable, "-m", "fedgrpo.cli.app", *service.words]
    network = "Wants=network-online.target\nAfter=network-online.target\n" if own else ""
    memory = f"MemoryMax={-(-service.memory // _MEBIBYTE)}M\n" if service.memory else ""
    return (
        f"# {service.about}; {by} enable --now {file}\n"
        f"[Unit]\nDescription={_escaped(service.about)}\n{network}StartLimitIntervalSec=0\n\n"
        f"[Service]\nWorkingDirectory={_escaped(str(service.here))}\n"
        f"ExecStart={' '.join(map(_quoted, command))}\n"
        f"{_KEPT}{memory}{''.join(own)}\n[Install]\nWantedBy={target}\n"
    )


def _places(service: Service) -> Iterator[str]:
    """Where it writes, and what in there it may only read."""
    kept = [path.relative_to(_STATE) for path in service.writes if path.is_relative_to(_STATE)]
    if kept:
        yield f"StateDirectory={' '.join(_quoted(str(path)) for path in kept)}\n"
        yield "StateDirectoryMode=0700\n"
    others = [path for path in service.writes if not path.is_relative_to(_STATE)]
    if others:
        yield f"ReadWritePaths={' '.join(_quoted(str(path)) for path in others)}\n"
    if service.reads:
        yield f"ReadOnlyPaths={' '.join(_quoted(f'-{path}') for path in service.reads)}\n"


def _kept_keys(service: Service) -> Iterator[str]:
    for name, path in service.keys.items():
        yield f"LoadCredential={name}:{_escaped(str(path))}\n"
    if service.keys:
        hidden = " ".join(_quoted(f"-{path}") for path in service.keys.values())
        yield f"InaccessiblePaths={hidden}\n"


def _quoted(word: str) -> str:
    escaped = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


def _escaped(word: str) -> str:
    return word.replace("%", "%%")
