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
from fedgrpo.federation.deployment.invitation.invitation import Invitation
from fedgrpo.federation.deployment.site.joining.site_folder import SiteFolder
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import FedGRPOError, RunError
from fedgrpo.ground.machine import GROUP
from fedgrpo.settings import Scalar, Settings
from fedgrpo.settings.scenario import load_scenario
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

    cgroup: Path = GROUP
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
    given:
        A site's own file, or an invitation where it has not joined yet; the error of one that
        cannot be used.
    own:
        What takes the place of the site's own configuration, or is to be one: ``prompts``, say.
    settings:
        That were agreed; None where nothing here says which.
    clock:
        Unix time as this machine has it.
    rehearse:
        Whether to sample for a few prompts.
    """

    given: SiteFile | Invitation | FedGRPOError
    own: Mapping[str, Scalar] = field(default_factory=dict)
    settings: Settings | None = None
    moment: Moment = Moment.ASKED
    clock: Callable[[], float] = time.time
    machine: Machine = field(default_factory=Machine)
    rehearse: bool = False

    @classmethod
    def of(
        cls, source: str, *, prompts: str = "", settings: str = "", rehearse: bool = False
    ) -> Surroundings:
        """What a person asks about.

        Parameters
        ----------
        source:
            A site's file, by its ending ``.toml``, or else an invitation: its file, or its line.
        prompts, settings:
            Files that take the place of those that it names, or an empty text.
        """
        own = {"prompts": str(Path(prompts).expanduser().absolute())} if prompts else {}
        try:
            given = SiteFile.read(Path(source)) if _of_a_site(source) else Invitation.read(source)
            agreed = given.agreed() if isinstance(given, Invitation) else None
            # A site that has joined keeps what was agreed beside its own file.
            file = Path(settings) if settings else SiteFolder(Path(source).parent).agreed
            if settings or (agreed is None and file.exists()):
                agreed = load_scenario(file, {}, Path.cwd())
            return cls(given, own, agreed, rehearse=rehearse)
        except FedGRPOError as error:
            return cls(error, own)

    @property
    def site(self) -> SiteFile | None:
        """The site's own file, if it has joined."""
        return self.given if isinstance(self.given, SiteFile) else None

    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port of the server; None where nothing says so that can be read."""
        if isinstance(self.given, FedGRPOError):
            return None
        return address_of(self.given.server)

    @cached_property
    def line(self) -> Line | None:
        """The way to the server, as far as it leads; None if nobody knows where it is."""
        if isinstance(self.given, FedGRPOError) or not (server := self.server):
            return None
        return walk(*server, self.given.ca, self.clock)

    @property
    def config(self) -> Mapping[str, Scalar]:
        """The node's own configuration, or what it would be."""
        return {**(self.site.node_config if self.site else {}), **self.own}

    @property
    def policy(self) -> Path | None:
        """File of the site's policy, if there is one."""
        return find_policy(self.config)

    @property
    def folder(self) -> Path | None:
        """Where the node keeps its state, or would; None where nothing says."""
        try:
            return node_folder(self.config, Settings())
        except RunError:
            return None

    @cached_property
    def looked(self) -> Look | FedGRPOError | None:
        """What was seen of prompts, model and reward, or why nothing was; None where it was not
        asked for, or nobody knows what to look at.
        """
        if self.moment is not Moment.ASKED or not self.settings or "prompts" not in self.config:
            return None
        try:
            return look(self.settings, self.config, rehearse=self.rehearse)
        except FedGRPOError as error:
            return error


def _of_a_site(source: str) -> bool:
    return source.endswith(".toml")
