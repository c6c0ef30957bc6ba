"""Where a node keeps its secret and what it has released: a folder that nobody else can open."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.run_files import NODES
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.refusals import Refusal, refused

STATE = "state"
"""Key of a node's own configuration that names its folder."""
LOCK, RUNNING = "node.lock", "running.lock"
"""Files in the folder that are locked while a release is made, and while a node runs."""
CONTACT, FINDINGS, SHUT_OUT = "contact", "doctor.json", "shut_out.json"
"""Files in the folder: touched whenever the server has answered, what the doctor found last, and
why the server was lost last."""


def node_folder(node_config: Mapping[str, Scalar], settings: Settings) -> Path | None:
    """Folder in which a node keeps its state.

    As its own configuration says, or beside its prompts; of a simulated node, in the run directory,
    or None if the simulation has none. Raises RunError if a deployed node has no place.
    """
    if STATE in node_config:
        return Path(str(node_config[STATE])).expanduser()
    if "partition-id" in node_config:
        directory = settings.run.directory
        return Path(directory) / NODES / str(node_config["partition-id"]) if directory else None
    if "prompts" not in node_config:
        raise RunError(
            "this node has no folder to keep its secret in",
            cure=f"write {STATE} = 'FOLDER' in site.toml, a folder of its own",
        )
    return folder_beside(Path(str(node_config["prompts"])))


def folder_beside(prompts: Path) -> Path:
    """Folder of the node whose prompts these are, where its configuration names none."""
    path = prompts.expanduser()
    return path.with_name(f".{path.name}.fedgrpo")


def owned_folder(folder: Path) -> Path:
    """Make a folder of mode 0700, or narrow it to that.

    Adversary: other users of the machine. In a folder that they may write to, they could put
    another secret or another lock in the place of the node's.

    Raises
    ------
    RunError
        If it belongs to another user.
    OSError
        If it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise RunError(
            "this node's folder belongs to another user of the machine",
            cure=f"write {STATE} = 'FOLDER' in site.toml, a folder of its own",
        )
    if stat.S_IMODE(status.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def chosen_folder(folder: Path, what: str, cure: str) -> Path:
    """Make a folder that somebody has named, absolute and of mode 0700.

    Parameters
    ----------
    folder:
        As it was named.
    what, cure:
        For the error: what it is, and how to name another one.

    Raises
    ------
    RunError
        If it cannot be had.
    """
    try:
        return owned_folder(folder.expanduser().absolute())
    except (OSError, RunError):
        raise RunError(
            f"{what} {folder} cannot be made, or belongs to another user", cure=cure
        ) from None


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the node's exclusive lock; it ends with the process.

    Parameters
    ----------
    wait:
        Whether to wait for who holds it.

    Raises
    ------
    PolicyError
        With the code ``busy``, if somebody else holds it and there is no waiting.
    """
    path = owned_folder(folder) / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise refused(Refusal.BUSY, "another order of this node is being answered") from None
    finally:
        os.close(descriptor)


def check_free(folder: Path | None) -> None:
    """Refuse while a release is being made here; raises PolicyError with the code ``busy``."""
    if folder is not None and (folder / LOCK).exists():
        with locked(folder):
            return


def running(folder: Path) -> str:
    """Id of the process that runs a node with this folder; empty if there is none. Nothing is
    changed.
    """
    try:
        with (folder / RUNNING).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "?"
    except OSError:
        pass
    return ""
