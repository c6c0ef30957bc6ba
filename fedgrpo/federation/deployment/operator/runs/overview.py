"""``fedgrpo status``: all that an operator wants to know at one look."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedgrpo.federation.deployment.flower_internals.control import KnownNode
from fedgrpo.federation.deployment.gateway.enrolment.book import Book
from fedgrpo.federation.deployment.invitation.invitation import when
from fedgrpo.federation.deployment.operator.certificates import SOON_DAYS, days_left
from fedgrpo.federation.deployment.operator.federation_file import FederationFile
from fedgrpo.federation.deployment.operator.runs.present import (
    SeenSite,
    ago,
    nodes,
    of_other_versions,
    seen_sites,
)
from fedgrpo.federation.deployment.operator.wish import Submitted, Wish
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.records import Guarantee
from fedgrpo.privacy.accounting.guarantees import guarantees
from fedgrpo.report.reader import read_dropped, read_rows, read_status
from fedgrpo.report.records import DroppedNode
from fedgrpo.report.wording import PHASE_WORDS, duration, time_left
from fedgrpo.settings import Settings

PROBLEMS = 10
"""As many are shown, the newest."""
LEAST_FREE = 10**9
"""Bytes of disk below which every status says so."""


@dataclass(frozen=True)
class SeenRun:
    """The run that was asked for last.

    Attributes
    ----------
    name, directory:
        Of the run.
    state:
        ``submitted``, ``stopped``, or as in ``status.json``.
    round, rounds:
        Under way, and in all.
    phase:
        In words.
    since:
        Unix time, in seconds, at which the phase began.
    left_s:
        Seconds to the end, as far as one can say.
    limit:
        Largest epsilon that the settings allow.
    problem, cure:
        Why it does not go on; empty if it does.
    epsilon:
        Spent so far, against each adversary; only where it was asked for, since it takes a while.
    """

    name: str
    directory: str
    state: str
    round: int
    rounds: int
    phase: str
    since: float
    left_s: float | None
    limit: float
    problem: str
    cure: str
    epsilon: tuple[Guarantee, ...] = ()


@dataclass(frozen=True)
class Overview:
    """What ``fedgrpo status`` shows, and prints as JSON.

    Attributes
    ----------
    running:
        Whether the server runs.
    sites, run:
        As they are seen; no run was asked for if it is None.
    problems:
        The newest last, each with its cure.
    certificate_days:
        Left until the server's certificate ends.
    free_bytes:
        Of the disk on which the folder lies.
    time:
        Unix time, in seconds, of the look.
    """

    running: bool
    sites: tuple[SeenSite, ...]
    run: SeenRun | None
    problems: tuple[str, ...]
    certificate_days: float
    free_bytes: int
    time: float

    def to_json(self) -> dict[str, Any]:
        """All of it as scalars, lists and dictionaries."""
        return asdict(self)

    def site_lines(self) -> Iterator[str]:
        """A line a site."""
        if not self.sites:
            yield "no site was invited yet: fedgrpo invite SITE --settings agreed.toml"
        wide = max((len(site.name) for site in self.sites), default=0)
        for site in self.sites:
            parts = [site.state, site.whereabouts(self.time)]
            if site.expires:
                parts.append(f"invitation until {when(site.expires)}")
            if site.fingerprint:
                parts.append(f"key {site.fingerprint}")
            if site.version:
                parts.append(f"fedgrpo {site.version}")
            yield f"{site.name:{wide}}  {', '.join(filter(None, parts))}"

    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        yield "the server runs" if self.running else "the server is not running: fedgrpo server"
        yield from self.site_lines()
        yield from _run_lines(self.run, self.time) if self.run else ("no run was asked for yet",)
        for problem in self.problems:
            yield f"problem: {problem}"


def look(folder: Path) -> Overview:
    """Look at a federation, whether or not its server runs.

    Raises
    ------
    SettingsError, RunError
        If the folder is no federation's, or something in it cannot be read.
    """
    now, federation = time.time(), FederationFile.read(folder)
    known: Mapping[bytes, KnownNode] | None = None
    with contextlib.suppress(RunError):
        known = nodes(folder)
    sites = seen_sites(Book(folder).sites(), known, now)
    days = days_left(Path(federation.certificate), datetime.fromtimestamp(now, UTC))
    free = shutil.disk_usage(folder).free
    run = _with_epsilon(folder, seen_run(folder))
    problems = (*_dropped(run, sites), *_versions(sites), *_of_the_machine(days, free))[-PROBLEMS:]
    return Overview(known is not None, sites, run, problems, days, free, now)


def seen_run(folder: Path) -> SeenRun | None:
    """The run that was asked for last; None if none was."""
    wish = Wish.read(folder)
    if wish is None:
        return None
    directory, submitted = Path(wish.directory), Submitted.read(folder)
    rows, status, rounds = read_rows(directory), read_status(directory), _rounds(wish)
    fresh = status is not None and (status.time >= wish.since or status.state == "finished")
    problem, cure = (status.problem, status.cure) if status and fresh else ("", "")
    if submitted and submitted.wish == wish.number and submitted.problem:
        problem, cure = submitted.problem, "see the server's log"
    state = status.state if status and fresh else "submitted"
    charged = max((row.round for row in rows), default=0)
    return SeenRun(
        name=wish.run,
        directory=wish.directory,
        state="stopped" if wish.stopped and state != "finished" else state,
        round=status.round if status and fresh else charged,
        rounds=rounds,
        phase=PHASE_WORDS.get(status.phase, status.phase) if status and fresh else "",
        since=status.since if status and fresh else wish.since,
        left_s=time_left(rows, rounds) if rows and state != "finished" else None,
        limit=float(wish.config["privacy.max_epsilon"]),
        problem=problem,
        cure=cure,
    )


def _rounds(wish: Wish) -> int:
    return int(wish.config["rounds"])


def _with_epsilon(folder: Path, run: SeenRun | None) -> SeenRun | None:
    wish = Wish.read(folder)
    rows = read_rows(Path(run.directory)) if run else []
    if run is None or wish is None or not rows or rows[-1].epsilon is None:
        return run
    settings = Settings.from_run_config(wish.config)
    return replace(run, epsilon=guarantees(settings, rows[-1].round))


def names(sites: Iterable[SeenSite]) -> dict[str, str]:
    """Names of sites by Flower's ids."""
    return {str(site.node): site.name for site in sites if site.node}


def by_name(dropped: DroppedNode, names: Mapping[str, str]) -> str:
    """Say which site a round was closed without, and why."""
    name = names.get(dropped.node, f"node {dropped.node}, which takes part no more,")
    return f"{name} was dropped in round {dropped.round}: {dropped.reason}"


def _dropped(run: SeenRun | None, sites: tuple[SeenSite, ...]) -> Iterator[str]:
    if run is None:
        return
    named = names(sites)
    for dropped in read_dropped(Path(run.directory))[-PROBLEMS:]:
        yield by_name(dropped, named)
    if run.problem:
        yield f"run {run.name}: {run.problem}" + (f" (cure: {run.cure})" if run.cure else "")


def _versions(sites: tuple[SeenSite, ...]) -> Iterator[str]:
    if others := ", ".join(of_other_versions(sites)):
        yield (
            f"this server runs fedgrpo {VERSION}, and not so {others} (cure: end the run if there "
            f"is one, then install {VERSION} there, or the older version here)"
        )


def _of_the_machine(days: float, free: int) -> Iterator[str]:
    if days < SOON_DAYS:
        ends = f"ends in {days:.0f} days" if days > 0 else "has ended"
        yield f"the server's certificate {ends} (cure: fedgrpo server renew, then restart it)"
    if free < LEAST_FREE:
        yield f"{free / 1e9:.1f} GB of disk are left (cure: make room, or move runs elsewhere)"


def _run_lines(run: SeenRun, now: float) -> Iterator[str]:
    words = f"run {run.name}: {run.state}, round {run.round} of {run.rounds}"
    if run.state in ("running", "waiting"):
        words += f", {run.phase} since {duration(max(0.0, now - run.since))}"
        words += f", {duration(run.left_s)} left" if run.left_s is not None else ""
    elif run.state == "submitted":
        words += f", {ago(now - run.since)}"
    yield words
    for held in run.epsilon:
        yield f"  epsilon {held.epsilon:.2f} of {run.limit:g} against {held.adversary}"
    yield f"  in {run.directory}"
