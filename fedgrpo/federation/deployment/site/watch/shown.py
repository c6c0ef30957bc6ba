"""What was seen of a site's own node, as a page and as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from fedgrpo.federation.deployment.site.watch.overview import SiteOverview
from fedgrpo.federation.deployment.site.watch.telling import (
    contact_words,
    drift_words,
    node_words,
    visit_words,
)
from fedgrpo.report.watch.metrics import Kind, Sample
from fedgrpo.report.watch.page import Cell, Facts, Page, Table
from fedgrpo.site.account.standing import Standing


def page(seen: SiteOverview) -> Page:
    """The site's page."""
    return Page(
        title=f"This site in the federation at {seen.server}",
        sentence=Cell(node_words(seen), "" if seen.running else "bad"),
        problems=seen.problems,
        parts=[_account(seen), _node(seen)],
        picture="",
        time=seen.time,
    )


def _account(seen: SiteOverview) -> Table:
    rows = _account_rows(seen.account) if seen.account else ()
    columns = ("What", "Spent", "Limit", "Left")
    return Table("Account", columns, [*rows], "There is none that can be read.")


def _account_rows(account: Standing) -> Iterator[tuple[Cell, ...]]:
    for each in account.units:
        what = f"epsilon of a {each.unit}, delta {account.delta:g}"
        yield Cell(what), *_of(each.epsilon, each.limit, 2)
    yield Cell("releases"), *_of(account.releases, account.most_releases, 0)


def _of(spent: float, limit: float, digits: int) -> tuple[Cell, Cell, Cell]:
    left = limit - spent
    return (
        Cell(f"{spent:.{digits}f}"),
        Cell(f"{limit:g}"),
        Cell(f"{left:.{digits}f}", "bad" if left < 0.1 * limit else ""),
    )


def _node(seen: SiteOverview) -> Facts:
    last = seen.last
    pairs = [
        ("Process", Cell(seen.running or "none", "" if seen.running else "bad")),
        ("Server", Cell(contact_words(seen))),
        ("Last release", Cell(f"round {last.round}, {last.at}" if last else "none yet")),
        ("Clock", Cell(drift_words(seen))),
        ("Doctor", Cell(visit_words(seen))),
        ("Service", Cell(seen.visit.service or "not known")),
        ("Disk", Cell(f"{seen.free_bytes / 1e9:.1f} GB free")),
        ("Version", Cell(f"fedgrpo {seen.version}")),
    ]
    return Facts("Node", pairs)


KINDS = (
    Kind("fedgrpo_node_up", "Whether the node runs (1 or 0)."),
    Kind(
        "fedgrpo_last_contact_timestamp_seconds",
        "When the server answered last, Unix time; not while the node answers an order.",
    ),
    Kind("fedgrpo_account_epsilon", "Spent, over all runs.", ("unit",)),
    Kind("fedgrpo_account_epsilon_limit", "Most that the policy allows.", ("unit",)),
    Kind("fedgrpo_account_releases", "Releases, over all runs."),
    Kind("fedgrpo_account_releases_limit", "Most that the policy allows."),
    Kind("fedgrpo_clock_drift_seconds", "How far the clock is ahead of the server's."),
    Kind("fedgrpo_doctor_findings", "What the doctor found last, but of prompts.", ("light",)),
    Kind("fedgrpo_doctor_timestamp_seconds", "When the doctor came last, Unix time."),
    Kind("fedgrpo_disk_free_bytes", "Free on the disk of the node's folder, in steps of 100 MB."),
    Kind("fedgrpo_problems", "What somebody should act on, see the status page."),
)
"""Of a site's metrics."""


def samples(seen: SiteOverview) -> Iterator[Sample]:
    """A site's metrics."""
    yield Sample("fedgrpo_node_up", bool(seen.running))
    yield Sample("fedgrpo_disk_free_bytes", seen.free_bytes)
    yield Sample("fedgrpo_problems", len(seen.problems))
    if seen.contact:
        yield Sample("fedgrpo_last_contact_timestamp_seconds", seen.contact)
    if account := seen.account:
        yield Sample("fedgrpo_account_releases", account.releases)
        yield Sample("fedgrpo_account_releases_limit", account.most_releases)
        for each in account.units:
            yield Sample("fedgrpo_account_epsilon", each.epsilon, {"unit": each.unit})
            yield Sample("fedgrpo_account_epsilon_limit", each.limit, {"unit": each.unit})
    if seen.visit.drift_s is not None:
        yield Sample("fedgrpo_clock_drift_seconds", seen.visit.drift_s)
    for light, count in (seen.visit.lights or {}).items():
        yield Sample("fedgrpo_doctor_findings", count, {"light": light})
    if seen.visit.time:
        yield Sample("fedgrpo_doctor_timestamp_seconds", seen.visit.time)
