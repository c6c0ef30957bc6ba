"""What was seen of a site's own node, for a console."""

from __future__ import annotations

from collections.abc import Iterator

from fedgrpo.federation.deployment.site.watch.overview import SiteOverview
from fedgrpo.report.watch.place import PASSWORD
from fedgrpo.report.wording import ago


def node_words(seen: SiteOverview) -> str:
    """How the node stands, in a line."""
    runs = f"runs (process {seen.running})" if seen.running else "does not run"
    return f"the node of {seen.server} {runs}, fedgrpo {seen.version}; server {contact_words(seen)}"


def contact_words(seen: SiteOverview) -> str:
    """When the server was heard of last."""
    return f"heard {ago(seen.time - seen.contact)}" if seen.contact else "never heard yet"


def visit_words(seen: SiteOverview) -> str:
    """What the doctor found last."""
    visit = seen.visit
    if not visit.lights:
        return "never came yet"
    lights = ", ".join(f"{count} {light}" for light, count in visit.lights.items())
    return f"came {ago(seen.time - visit.time)}: {lights}"


def drift_words(seen: SiteOverview) -> str:
    """How far the clock is off."""
    drift = seen.visit.drift_s
    if drift is None:
        return "not known"
    return f"{abs(drift):.1f} s {'ahead of' if drift > 0 else 'behind'} the server's"


def lines(seen: SiteOverview) -> Iterator[str]:
    """Say all of it."""
    yield node_words(seen)
    yield f"account: {seen.account.words if seen.account else 'none that can be read'}"
    if seen.last:
        yield f"last release: round {seen.last.round} of run {seen.last.run}, at {seen.last.at}"
    yield f"clock: {drift_words(seen)}; disk: {seen.free_bytes / 1e9:.1f} GB free"
    yield f"doctor: {visit_words(seen)}"
    if seen.visit.service:
        yield f"service: {seen.visit.service}"
    if seen.page:
        yield f"page: {seen.page} (password: {PASSWORD} in the node's folder)"
    for problem in seen.problems:
        yield f"to do: {problem.words}"
