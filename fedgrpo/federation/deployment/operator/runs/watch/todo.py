"""What an operator should do: by codes of docs/troubleshooting.md, with their cures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedgrpo.federation.deployment.log.codes import LOGGED
from fedgrpo.federation.deployment.operator.certificates import SOON_DAYS
from fedgrpo.federation.deployment.operator.runs.present import SeenSite
from fedgrpo.federation.deployment.operator.runs.seen import SeenRun
from fedgrpo.federation.deployment.operator.runs.watch.overview import Overview
from fedgrpo.report.watch.problem import Problem

PROBLEMS = 10
"""As many are shown."""
LEAST_FREE = 10**9
"""Bytes of disk below which every status says so."""


def todo(seen: Overview) -> tuple[Problem, ...]:
    """Problems, those of the moment first; then rounds without a site, the latest first."""
    now = [*_of_the_server(seen), *_of_the_run(seen.run), *_of_sites(seen)]
    return tuple([*now, *_dropped(seen.sites)][:PROBLEMS])


def _problem(code: str, line: str, cure: str = "") -> Problem:
    return Problem(code, line, cure or LOGGED[code].cure)


def _of_the_server(seen: Overview) -> Iterator[Problem]:
    if not seen.running:
        yield _problem("server-down", "the server is not running, or only just starts")
    if (days := seen.certificate_days) < SOON_DAYS:
        ends = f"ends in {days:.0f} days" if days > 0 else "has ended"
        yield _problem("certificate-soon", f"the server's certificate {ends}")
    if seen.free_bytes < LEAST_FREE:
        yield _problem("disk-short", f"{seen.free_bytes / 1e9:.1f} GB of disk are left")


def _of_the_run(run: SeenRun | None) -> Iterator[Problem]:
    if run and run.problem:
        code = "run-unsubmitted" if run.state == "submitted" else "run-failed"
        yield _problem(code, f"run {run.name}: {run.problem}", run.cure)


def _of_sites(seen: Overview) -> Iterator[Problem]:
    for site in seen.sites:
        if site.waits:
            yield _problem("site-waits", f"{site.name} has joined, and waits for its confirmation")
        if site.differs:
            yield _problem(
                "site-version",
                f"{site.name} has fedgrpo {site.version}, and this server {seen.version}",
            )
        if site.takes_part and site.online is False and seen.run and seen.run.goes_on:
            where = site.whereabouts(seen.time)
            yield _problem("site-missing", f"{site.name} is not there ({where})")


def _dropped(sites: Sequence[SeenSite]) -> Iterator[Problem]:
    found = [(site.name, site.dropped) for site in sites if site.dropped]
    for name, drop in sorted(found, key=lambda pair: -pair[1].time):
        times = f"{drop.times} rounds, the last of them {drop.round}" if drop.times > 1 else ""
        line = f"{name}: {drop.reason} (in {times or f'round {drop.round}'})"
        code = drop.code or "node-dropped"
        yield Problem(code, line, drop.cure or LOGGED["site-missing"].cure, drop.time)
