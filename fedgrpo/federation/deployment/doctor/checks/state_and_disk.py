"""The account, the node's folder, and room on the disk."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from fedgrpo.federation.deployment.doctor.finding import Finding, Findings, fine, trouble
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Machine, Moment, Surroundings
from fedgrpo.ground.errors import PolicyError
from fedgrpo.site import Site
from fedgrpo.site.node_folder import running

MIB = 2**20
NEEDED_MIB, PLENTY_MIB = 256, 2048
"""Room that a node's state and log need, and that lasts for a while."""
VOLATILE = ("tmpfs", "ramfs")
"""Kinds of file systems that are empty after a restart."""


@check(11, "account and state")
def state(here: Surroundings) -> Findings:
    """That the account is whole, and the folder the site's own, writable and there tomorrow."""
    wrong = [*_account(here), *(_folder(here, here.folder) if here.folder else ())]
    yield from wrong
    if not wrong:
        where = f"in {here.folder}" if here.folder else "beside the prompts"
        yield fine(f"account whole; the node's state is {where}")


def _account(here: Surroundings) -> Iterator[Finding]:
    if not here.policy:
        return
    try:
        site = Site.open(here.policy)
        history = site.spending.read()
    except PolicyError as error:
        if error.code != "policy-file":
            yield trouble("account-broken", why=error.problem)
        return
    if history.torn:
        yield trouble("account-torn")
    file = site.spending.path
    if not _writable(file):
        yield trouble("folder-unwritable", folder=file)
    yield from _lasting(file.parent, here.machine)


def _folder(here: Surroundings, folder: Path) -> Iterator[Finding]:
    if folder.is_dir():
        status = folder.stat()
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            yield trouble("folder-foreign", folder=folder)
        elif mode & 0o077:
            yield trouble("folder-open", folder=folder, mode=f"{mode:04o}")
        process = running(folder)
        if process and here.moment is Moment.START:
            yield trouble("node-twice", folder=folder, process=process)
    if not _writable(folder):
        yield trouble("folder-unwritable", folder=folder)
    yield from _lasting(folder, here.machine)


def _writable(path: Path) -> bool:
    """Whether a file or folder can be written to, or made where it is not; nothing is tried."""
    there = _there(path)
    if there.is_dir():
        return os.access(there, os.W_OK | os.X_OK)
    return there == path.absolute() and os.access(there, os.W_OK)


def _there(path: Path) -> Path:
    """The path, or the closest folder above it that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _lasting(folder: Path, machine: Machine) -> Iterator[Finding]:
    """That what is kept there is there after a restart."""
    kind = _kind(_there(folder).resolve(), machine.mounts)
    if kind in VOLATILE:
        yield trouble("folder-volatile", folder=folder, kind=kind)
    elif kind == "overlay":
        yield trouble("folder-layer", folder=folder)


def _kind(path: Path, mounts: Path) -> str:
    """Kind of the file system that a path is on; empty where the system does not say."""
    found, kind = -1, ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        # Of two mounts at one place the later one hides the earlier.
        if path.is_relative_to(point) and len(point.parts) >= found:
            found, kind = len(point.parts), after.split()[0]
    return kind


@check(15, "disk")
def disk(here: Surroundings) -> Findings:
    """Room for state, account and log."""
    places = {"the node's state": here.folder, "the account": here.policy and here.policy.parent}
    found = [(what, folder, _free_mib(folder)) for what, folder in places.items() if folder]
    for what, folder, free in found:
        if free < NEEDED_MIB:
            yield trouble("disk-full", free=free, what=what, folder=folder, needed=NEEDED_MIB)
        elif free < PLENTY_MIB:
            yield trouble("disk-nearly", free=free, what=what, folder=folder)
    if not found or min(free for _, _, free in found) >= PLENTY_MIB:
        room = f"{min(free for _, _, free in found)} MiB are free" if found else "nothing is kept"
        yield fine(room)


def _free_mib(folder: Path) -> int:
    """What this user may still write there."""
    there = _there(folder)
    inodes = os.statvfs(there)
    if inodes.f_files and not inodes.f_favail:
        return 0
    return shutil.disk_usage(there).free // MIB
