"""``fedgrpo status``: all that an operator wants to know at one look.

Console, JSON, page and metrics are made from one data class.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fedgrpo.federation.deployment.operator.runs.present import SeenSite
from fedgrpo.federation.deployment.operator.runs.seen import SeenRun
from fedgrpo.report.watch.problem import Problem


@dataclass(frozen=True)
class Overview:
    """What ``fedgrpo status`` shows, and prints as JSON.

    Attributes
    ----------
    server:
        ``HOST:PORT``, as sites dial it.
    version:
        Of fedgrpo here.
    running:
        Whether the server runs.
    sites, run:
        As they are seen; no run was asked for if it is None.
    problems:
        What is so now, then what was last, at most ten.
    certificate_days:
        Left until the server's certificate ends.
    free_bytes:
        Of the disk on which the folder lies.
    page:
        Address of the status page; empty where there is none.
    time:
        Unix time, in seconds, of the look.
    """

    server: str
    version: str
    running: bool
    sites: tuple[SeenSite, ...]
    run: SeenRun | None
    problems: tuple[Problem, ...]
    certificate_days: float
    free_bytes: int
    page: str
    time: float

    @property
    def invitations(self) -> dict[str, int]:
        """When open invitations end, by site: Unix time, in seconds."""
        return {site.name: site.expires for site in self.sites if site.expires}

    @property
    def queued(self) -> int:
        """Runs that were asked for and have not begun."""
        return int(self.run is not None and self.run.state == "submitted")

    def to_json(self) -> dict[str, Any]:
        """All of it as scalars, lists and dictionaries."""
        return {**asdict(self), "invitations": self.invitations, "queued": self.queued}
