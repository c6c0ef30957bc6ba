"""``fedgrpo status`` at a site: all that its people want to know at one look."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fedgrpo.federation.deployment.log.codes import LOGGED
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import PolicyError
from fedgrpo.report.watch.place import Place
from fedgrpo.report.watch.problem import Problem
from fedgrpo.settings import Settings
from fedgrpo.site.account.standing import Standing
from fedgrpo.site.node_folder import CONTACT, FINDINGS, SHUT_OUT, node_folder, running
from fedgrpo.site.site import site_of

GRAIN = 10**8
SILENT_S = 180.0
"""A node that runs hears of its server more often, but while it answers an order."""
_SERVICE = 20
"""Number of the doctor's check of what starts the node."""


@dataclass(frozen=True)
class LastRelease:
    """What was answered last.

    Attributes
    ----------
    at:
        Local time, ISO 8601, at which it was charged for.
    run, round:
        Where it was asked for.
    """

    at: str
    run: int
    round: int


@dataclass(frozen=True)
class Visit:
    """What the doctor found when it came last, before the node's start or in the last hour.

    Attributes
    ----------
    time:
        Unix time, in seconds; 0 if it never came.
    lights:
        How many of what it found are green, yellow and red. Of prompts it is never told.
    drift_s:
        Seconds by which this machine's clock is ahead of the server's; None if it is not known.
    service:
        What starts the node again.
    problems:
        What is yellow or red.
    """

    time: float = 0.0
    lights: Mapping[str, int] | None = None
    drift_s: float | None = None
    service: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class SiteOverview:
    """What ``fedgrpo status`` shows at a site, and prints as JSON.

    Attributes
    ----------
    server:
        ``HOST:PORT``.
    version:
        Of fedgrpo here.
    running:
        Id of the process that runs the node; empty if there is none.
    contact:
        Unix time, in seconds, at which the server answered last; 0 if it never did.
    account:
        None where there is no policy, or it cannot be read.
    last:
        None if nothing was ever answered.
    visit:
        The doctor's.
    problems:
        What somebody should act on.
    free_bytes:
        Of the disk on which the node keeps its state, in steps of 100 MB: what is logged of
        prompts takes room there, too.
    page:
        Address of the status page; empty where there is none.
    time:
        Unix time, in seconds, of the look.
    """

    server: str
    version: str
    running: str
    contact: float
    account: Standing | None
    last: LastRelease | None
    visit: Visit
    problems: tuple[Problem, ...]
    free_bytes: int
    page: str
    time: float

    def to_json(self) -> dict[str, Any]:
        """All of it as scalars, lists and dictionaries."""
        return asdict(self)


def look(site: SiteFile, *, add_up: bool = False) -> SiteOverview:
    """Look at a site by its folder. Nobody is asked.

    Parameters
    ----------
    site:
        Its file.
    add_up:
        Whether to add up what the account comes to, where nobody has yet: seconds, and torch.

    Raises
    ------
    RunError
        If nothing says where the node keeps its state.
    """
    folder = node_folder(site.node_config, Settings())
    assert folder, "no node of a simulation"
    account, last, answer_s, broken = _account(site, add_up=add_up)
    process, visit = running(folder), _visit(folder / FINDINGS)
    seen = SiteOverview(
        server=site.server,
        version=VERSION,
        running=process,
        contact=_changed(folder / CONTACT),
        account=account,
        last=last,
        visit=visit,
        problems=(),
        free_bytes=shutil.disk_usage(_there(folder)).free // GRAIN * GRAIN,
        page=Place.of(site.status_bind).address if site.status_bind else "",
        time=time.time(),
    )
    now = _now(seen, answer_s, _shut_out(folder / SHUT_OUT, seen.contact))
    return replace(seen, problems=(*now, *broken, *visit.problems))


def _there(folder: Path) -> Path:
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _changed(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _account(
    site: SiteFile, *, add_up: bool
) -> tuple[Standing | None, LastRelease | None, float, tuple[Problem, ...]]:
    """How it stands, its last release, seconds that an answer takes, and why it cannot be read."""
    answer_s = 0.0
    try:
        if own := site_of(site.node_config):
            answer_s = own.policy.answer_after_s
            if add_up:
                own.standing()
            standing, made = own.seen_standing()
            last = LastRelease(made.at, made.run, made.round) if made else None
            return standing, last, answer_s, ()
    except PolicyError as error:
        return None, None, answer_s, (Problem("account-broken", error.problem, error.cure),)
    return None, None, answer_s, ()


def _now(seen: SiteOverview, answer_s: float, shut_out: Problem | None) -> Iterator[Problem]:
    if not seen.running:
        yield Problem("node-down", "no node runs here", LOGGED["node-down"].cure)
    if shut_out:
        yield shut_out
    elif seen.running and seen.contact and seen.time - seen.contact > SILENT_S + answer_s:
        minutes = (seen.time - seen.contact) / 60
        line = f"the server has not answered for {minutes:.0f} minutes"
        yield Problem("server-silent", line, LOGGED["server-silent"].cure)


def _shut_out(file: Path, contact: float) -> Problem | None:
    """Why the server was lost, unless it has answered since."""
    if _changed(file) > contact:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(file.read_bytes())
            return Problem("server-refuses", str(said["problem"]), str(said["cure"]))
    return None


def _visit(file: Path) -> Visit:
    """What the doctor has left, as far as it can be read."""
    try:
        said = json.loads(file.read_bytes())
        found = list(said["findings"])
        lights = [str(each["light"]) for each in found]
        return Visit(
            time=datetime.fromisoformat(said["at"]).timestamp(),
            lights={light: lights.count(light) for light in ("green", "yellow", "red")},
            drift_s=said.get("drift_s"),
            service="; ".join(each["line"] for each in found if each["check"] == _SERVICE),
            problems=tuple(
                Problem(each["code"], f"{each['light']}: {each['line']}", each["cure"])
                for each in found
                if each["light"] != "green"
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Visit()
