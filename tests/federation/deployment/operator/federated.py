"""A federation's folder with sites and a run under way, as its server would have left them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedgrpo.federation.deployment.flower_internals.control import KnownNode
from fedgrpo.federation.deployment.gateway.enrolment.book import Book, Enrolled
from fedgrpo.federation.deployment.operator.founding import found
from fedgrpo.federation.deployment.operator.runs.asking import ask, wish_for
from fedgrpo.federation.deployment.operator.runs.present import seen_sites
from fedgrpo.federation.deployment.operator.runs.watch.looking import look
from fedgrpo.federation.deployment.operator.runs.watch.todo import todo
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Settings
from fedgrpo.site.refusals import CURES, Refusal
from tests.ledger.runs import head, round_entry, write_run
from tests.report.runs import run

THREE = Settings.from_run_config(
    {"federation.min_clients": 3, "robust.rule": "mean", "robust.trim": 0, "rounds": 24}
)
HOURS = f"refused, hours: {CURES[Refusal.HOURS]}"


def federation(folder: Path) -> Path:
    """Three sites that take part, one that waits, one that is invited; four rounds are over."""
    found(folder, "fed.example", 8443, public=None)
    book = {
        "hospital-a": Enrolled(key="A", used_by="A", token="x", version="0.0.1"),
        "hospital-b": Enrolled(key="B", used_by="B", token="x"),
        "hospital-c": Enrolled(key="C", used_by="C", token="x"),
        "hospital-d": Enrolled(waiting="D", used_by="D", token="x"),
        "hospital-e": Enrolled(token="x", expires=4_000_000_000),
    }
    for name, site in book.items():
        Book(folder).change(name, lambda _, site=site: site)
    wish = wish_for(folder, folder / "runs", "spring", THREE)
    ask(folder, wish)
    writer = RunWriter(Path(wish.directory))
    for row in run(4):
        writer.row(replace(row, applied=False, reason="two sites") if row.round == 2 else row)
    write_run(Path(wish.directory), head(THREE), *(round_entry(n, THREE) for n in range(1, 5)))
    writer.dropped(3, {22: HOURS, 33: "no reply in time"})
    writer.dropped(4, {22: HOURS})
    writer.phase(5, 24, "train")
    return folder


def seen(folder: Path, now: float | None = None):
    """What an operator sees of it while its server runs and a site is away."""
    alone = look(folder)
    now = now or alone.time
    known = {
        b"A": KnownNode(11, True, now + 30),
        b"B": KnownNode(22, True, now + 30),
        b"C": KnownNode(33, False, now - 7200),
    }
    drops = {site.name: site.dropped for site in alone.sites}
    assert not any(drops.values()), "without a server nobody knows the nodes' names"
    from fedgrpo.federation.deployment.operator.runs.watch.looking import _with_drops

    sites = _with_drops(seen_sites(Book(folder).sites(), known, now), alone.run)
    there = replace(alone, running=True, sites=sites)
    return replace(there, problems=todo(there))
