"""What the doctor looks at: an invitation or a site, and the machine around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from fedgrpo.federation.deployment.doctor.line import Line, address_of, walk
from fedgrpo.federation.deployment.doctor.look import look
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import FedGRPOError, RunError
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.look import Look
from fedgrpo.site.node_folder import node_folder
from fedgrpo.site.site import find_policy


class Moment(StrEnum):
    """When the doctor comes."""

    ASKED = "asked"
    """By a person: everything is looked at."""
    START = "start"
    """Before a node starts: what takes no time, and no look at prompts."""
    HOURLY = "hourly"
    """While it runs; as before its start."""


@dataclass(frozen=True)
class Machine:
    """Places of the operating system."""

    cgroup: Path = Path("/sys/fs/cgroup")
    mounts: Path = Path("/proc/self/mountinfo")
    units: tuple[Path, ...] = (
        Path("/etc/systemd/system"),
        Path("/usr/lib/systemd/system"),
        Path("~/.config/systemd/user").expanduser(),
    )
    """Folders of systemd's units; the last one's belong to a user."""
    containers: tuple[Path, ...] = (Path("/.dockerenv"), Path("/run/.containerenv"))
    """Files that are there in a container alone."""


@dataclass(frozen=True)
class Surroundings:
    """Everything that checks look at. What several of them need is looked at once.

    Attributes
    ----------
    server:
        ``HOST:PORT``.
    root:
        File of its root certificate, the certificate itself (PEM), or ``system``.
    prompts:
        File or folder; empty where none is named.
    site:
        Of the site's own file; None before it has joined.
    settings:
        That were agreed; None where nothing here says which.
    clock:
        Unix time as this machine has it.
    rehearse:
        Whether to sample for a few prompts.
    """

    server: str
    root: str
    prompts: str = ""
    site: SiteFile | None = None
    settings: Settings | None = None
    moment: Moment = Moment.ASKED
    clock: Callable[[], float] = time.time
    machine: Machine = field(default_factory=Machine)
    rehearse: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server; raises ValueError if it is no ``HOST:PORT``."""
        return address_of(self.server)

    @cached_property
    def line(self) -> Line:
        """The way to the server, as far as it leads."""
        return walk(*self.address, self.root, self.clock)

    @property
    def config(self) -> Mapping[str, Scalar]:
        """The node's own configuration, or what it would be."""
        if self.site:
            return self.site.node_config
        return {"prompts": self.prompts} if self.prompts else {}

    @property
    def policy(self) -> Path | None:
        """File of the site's policy, if there is one."""
        return find_policy(self.config)

    @property
    def folder(self) -> Path | None:
        """Where the node keeps its state; None where nothing says."""
        try:
            return node_folder(self.config, Settings())
        except RunError:
            return None

    @cached_property
    def looked(self) -> Look | FedGRPOError:
        """What was seen of prompts, model and reward, or why nothing was."""
        assert self.settings
        try:
            return look(self.settings, self.config, rehearse=self.rehearse)
        except FedGRPOError as error:
            return error
