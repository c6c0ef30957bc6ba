"""What was seen, for a console."""

from __future__ import annotations

from collections.abc import Iterator

from fedgrpo.federation.deployment.invitation.invitation import when
from fedgrpo.federation.deployment.operator.runs.present import SeenSite
from fedgrpo.federation.deployment.operator.runs.seen import SeenRun
from fedgrpo.federation.deployment.operator.runs.watch.overview import Overview
from fedgrpo.report.watch.place import PASSWORD
from fedgrpo.report.wording import ago, duration


def site_lines(seen: Overview) -> Iterator[str]:
    """Say who there is, a line a site."""
    if not seen.sites:
        yield "no site was invited yet: fedgrpo invite SITE --settings agreed.toml"
    wide = max((len(site.name) for site in seen.sites), default=0)
    for site in seen.sites:
        yield f"{site.name:{wide}}  {', '.join(_about(site, seen.time))}"


def _about(site: SeenSite, now: float) -> Iterator[str]:
    yield site.state
    if where := site.whereabouts(now):
        yield where
    if site.expires:
        yield f"invitation until {when(site.expires)}"
    if site.fingerprint:
        yield f"key {site.fingerprint}"
    if site.version:
        yield f"fedgrpo {site.version}"
    if drop := site.dropped:
        yield f"without it in round {drop.round}: {drop.reason}"


def lines(seen: Overview) -> Iterator[str]:
    """Say all of it."""
    runs = "runs" if seen.running else "is not running"
    yield f"the server {seen.server} {runs}, fedgrpo {seen.version}"
    yield from site_lines(seen)
    yield from _run_lines(seen.run, seen.time) if seen.run else ("no run was asked for yet",)
    yield machine_line(seen)
    if seen.page:
        yield f"page: {seen.page} (password: {PASSWORD} in the folder)"
    for problem in seen.problems:
        yield f"to do: {problem.words}"


def machine_line(seen: Overview) -> str:
    """Certificate and disk, in a line."""
    days, free = seen.certificate_days, seen.free_bytes / 1e9
    return f"certificate: {days:.0f} days left; disk: {free:.1f} GB free"


def run_words(run: SeenRun, now: float) -> str:
    """How the run stands, in a line."""
    words = f"run {run.name}: {run.state}, round {run.round} of {run.rounds}"
    if run.goes_on:
        words += f", {run.phase} since {duration(max(0.0, now - run.since))}"
        words += f", {duration(run.left_s)} left" if run.left_s is not None else ""
    elif run.state == "submitted":
        words += f", {ago(now - run.since)}"
    return words


def _run_lines(run: SeenRun, now: float) -> Iterator[str]:
    yield run_words(run, now)
    for held in run.epsilon:
        yield f"  epsilon {held.epsilon:.2f} of {run.limit:g} against {held.adversary}"
    yield f"  in {run.directory}"
