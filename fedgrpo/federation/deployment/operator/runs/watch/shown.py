"""What was seen, as a page and as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from fedgrpo.federation.deployment.invitation.invitation import when
from fedgrpo.federation.deployment.operator.certificates import SOON_DAYS
from fedgrpo.federation.deployment.operator.runs.present import SeenSite
from fedgrpo.federation.deployment.operator.runs.seen import SeenRound, SeenRun
from fedgrpo.federation.deployment.operator.runs.watch.overview import Overview
from fedgrpo.federation.deployment.operator.runs.watch.telling import run_words
from fedgrpo.federation.deployment.operator.runs.watch.todo import LEAST_FREE
from fedgrpo.report.watch.metrics import Kind, Sample
from fedgrpo.report.watch.page import Cell, Facts, Page, Table
from fedgrpo.report.wording import duration, number

# The page ----------------------------------------------------------------------------------------


def page(seen: Overview) -> Page:
    """The operator's page."""
    here = sum(bool(site.online) for site in seen.sites)
    part = sum(site.takes_part for site in seen.sites)
    run = seen.run
    words = run_words(run, seen.time) if run else "no run was asked for yet"
    running = "" if seen.running else "the server is not running; "
    return Page(
        title=f"Federation at {seen.server}",
        sentence=Cell(
            f"{running}{words}; {here} of {part} sites are here",
            "" if seen.running and here == part else "bad",
        ),
        problems=seen.problems,
        parts=[
            *([_run(run, seen.time)] if run else []),
            _sites(seen),
            *([_epsilon(run), _rounds(run.latest)] if run else []),
            _machine(seen),
        ],
        picture=f"rounds of {run.name} so far, drawn" if run and run.latest else "",
        time=seen.time,
    )


def _run(run: SeenRun, now: float) -> Facts:
    left = run.left_s if run.goes_on else None
    until = datetime.fromtimestamp(now + (left or 0.0), UTC).strftime("%d %B, %H:%M UTC")
    pairs = [
        ("State", Cell(run.state, "bad" if run.problem else "")),
        ("Round", Cell(f"{run.round} of {run.rounds}")),
        ("Phase", Cell(run.phase if run.goes_on else "–")),
        ("Since", Cell(duration(max(0.0, now - run.since)))),
        ("Time left", Cell(f"{duration(left)}, until {until}" if left is not None else "–")),
        ("Rounds without effect", Cell(str(run.skipped), "bad" if run.skipped else "")),
        ("Directory", Cell(run.directory, "soft")),
    ]
    return Facts(f"Run {run.name}", pairs)


def _sites(seen: Overview) -> Table:
    columns = ("Site", "State", "There", "Node", "fedgrpo", "Last round without it", "Cure")
    return Table(
        "Sites",
        columns,
        [_site(site, seen) for site in seen.sites],
        "No site was invited yet: fedgrpo invite SITE --settings agreed.toml",
    )


def _site(site: SeenSite, seen: Overview) -> Sequence[Cell]:
    drop, ends = site.dropped, f", until {when(site.expires)}" if site.expires else ""
    without = f"{drop.round}: {drop.reason}" if drop else ""
    return (
        Cell(site.name),
        Cell(site.state + ends, "" if site.takes_part else "soft"),
        Cell(
            site.whereabouts(seen.time) or "–",
            {True: "good", False: "bad"}.get(site.online, "soft"),  # type: ignore[arg-type]
        ),
        Cell(str(site.node or "–"), "soft"),
        Cell(site.version or "–", "bad" if site.differs else ""),
        Cell(without or "–", "" if drop else "soft"),
        Cell(drop.cure if drop else "", "soft"),
    )


def _epsilon(run: SeenRun) -> Table:
    rows = [
        (
            Cell(held.adversary),
            Cell(f"{held.epsilon:.2f}", "bad" if held.epsilon > run.limit else ""),
            Cell(f"{run.limit:g}"),
            Cell(f"{held.delta:g}"),
            Cell(held.unit),
        )
        for held in run.epsilon
    ]
    columns = ("Against", "Epsilon", "Limit", "Delta", "Hides")
    return Table("Privacy spent", columns, rows, "No round has a guarantee yet, or none has any.")


def _rounds(rounds: Sequence[SeenRound]) -> Table:
    columns = ("Round", "Reward", "Held-out", "Nodes", "Dropped", "Epsilon", "Seconds", "Phases")
    return Table("Rounds", columns, [_round(r) for r in reversed(rounds)], "None is over yet.")


def _round(row: SeenRound) -> Sequence[Cell]:
    phases = ", ".join(f"{phase} {seconds:.0f}" for phase, seconds in row.seconds.items())
    return (
        Cell(str(row.round)),
        Cell(number(row.reward)),
        Cell(number(row.held_out)),
        Cell(str(row.finished)),
        Cell(str(row.dropped), "bad" if row.dropped else ""),
        Cell(number(row.epsilon, 2)),
        Cell(f"{sum(row.seconds.values()):.0f}"),
        Cell(
            f"without effect: {row.reason}" if row.reason else phases,
            "bad" if row.reason else "soft",
        ),
    )


def _machine(seen: Overview) -> Facts:
    days, free = seen.certificate_days, seen.free_bytes
    pairs = [
        ("Certificate", Cell(f"{days:.0f} days left", "bad" if days < SOON_DAYS else "")),
        ("Disk", Cell(f"{free / 1e9:.1f} GB free", "bad" if free < LEAST_FREE else "")),
        ("Open invitations", Cell(", ".join(seen.invitations) or "none")),
        ("Version", Cell(f"fedgrpo {seen.version}")),
    ]
    return Facts("Machine", pairs)


# Metrics -----------------------------------------------------------------------------------------

KINDS = (
    Kind("fedgrpo_server_up", "Whether the server answers (1 or 0)."),
    Kind("fedgrpo_sites", "Sites that take part."),
    Kind("fedgrpo_sites_online", "Those among them that are there."),
    Kind("fedgrpo_sites_waiting", "Sites whose key waits for its confirmation."),
    Kind("fedgrpo_site_online", "Whether a site is there (1 or 0).", ("site",)),
    Kind(
        "fedgrpo_site_last_seen_timestamp_seconds",
        "Until when a site was there, Unix time; while it is there, a little ahead.",
        ("site",),
    ),
    Kind("fedgrpo_invitations_open", "Invitations that nobody has used yet."),
    Kind("fedgrpo_runs_queued", "Runs that were asked for and have not begun."),
    Kind("fedgrpo_run_state", "1 for the state that the run is in.", ("run", "state")),
    Kind("fedgrpo_run_phase", "1 for the phase that the run is in.", ("run", "phase")),
    Kind("fedgrpo_run_phase_start_timestamp_seconds", "When the phase began, Unix time.", ("run",)),
    Kind("fedgrpo_run_round", "Round under way, or the last one.", ("run",)),
    Kind("fedgrpo_run_rounds", "Rounds in all.", ("run",)),
    Kind("fedgrpo_run_left_seconds", "Estimated time to the end.", ("run",)),
    Kind("fedgrpo_run_rounds_skipped", "Rounds that left the model as it was.", ("run",)),
    Kind("fedgrpo_round_seconds", "Wall time of the last finished round.", ("run", "phase")),
    Kind("fedgrpo_run_refusals", "Refusals by nodes in this run.", ("run", "code")),
    Kind("fedgrpo_epsilon", "Spent so far.", ("run", "adversary")),
    Kind("fedgrpo_epsilon_limit", "Most that the run may spend.", ("run",)),
    Kind("fedgrpo_certificate_days", "Days left until the server's certificate ends."),
    Kind("fedgrpo_disk_free_bytes", "Free on the disk of the server's folder."),
    Kind("fedgrpo_problems", "What somebody should act on, see the status page."),
)
"""Of the operator's metrics."""


def samples(seen: Overview) -> Iterator[Sample]:
    """The operator's metrics."""
    part = [site for site in seen.sites if site.takes_part]
    yield Sample("fedgrpo_server_up", seen.running)
    yield Sample("fedgrpo_sites", len(part))
    yield Sample("fedgrpo_sites_online", sum(bool(site.online) for site in part))
    waiting = sum(site.waits for site in seen.sites)
    yield Sample("fedgrpo_sites_waiting", waiting)
    for site in part:
        named = {"site": site.name}
        yield Sample("fedgrpo_site_online", bool(site.online), named)
        if site.seen:
            yield Sample("fedgrpo_site_last_seen_timestamp_seconds", site.seen, named)
    yield Sample("fedgrpo_invitations_open", len(seen.invitations))
    yield Sample("fedgrpo_runs_queued", seen.queued)
    yield Sample("fedgrpo_certificate_days", seen.certificate_days)
    yield Sample("fedgrpo_disk_free_bytes", seen.free_bytes)
    yield Sample("fedgrpo_problems", len(seen.problems))
    if seen.run:
        yield from _of_the_run(seen.run)


def _of_the_run(run: SeenRun) -> Iterator[Sample]:
    named = {"run": run.name}
    yield Sample("fedgrpo_run_state", 1, named | {"state": run.state})
    if run.goes_on:
        yield Sample("fedgrpo_run_phase", 1, named | {"phase": run.phase})
        yield Sample("fedgrpo_run_phase_start_timestamp_seconds", run.since, named)
    yield Sample("fedgrpo_run_round", run.round, named)
    yield Sample("fedgrpo_run_rounds", run.rounds, named)
    yield Sample("fedgrpo_run_rounds_skipped", run.skipped, named)
    if run.left_s is not None:
        yield Sample("fedgrpo_run_left_seconds", run.left_s, named)
    for phase, seconds in (run.latest[-1].seconds if run.latest else {}).items():
        yield Sample("fedgrpo_round_seconds", seconds, named | {"phase": phase})
    for code, times in run.refusals.items():
        yield Sample("fedgrpo_run_refusals", times, named | {"code": code})
    for held in run.epsilon:
        yield Sample("fedgrpo_epsilon", held.epsilon, named | {"adversary": held.adversary})
    yield Sample("fedgrpo_epsilon_limit", run.limit, named)
