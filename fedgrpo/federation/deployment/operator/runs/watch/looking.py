"""A look at a federation, by its folder and by its server."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fedgrpo.federation.deployment.flower_internals.control import KnownNode
from fedgrpo.federation.deployment.gateway.enrolment.book import Book
from fedgrpo.federation.deployment.operator.certificates import days_left
from fedgrpo.federation.deployment.operator.federation_file import FederationFile
from fedgrpo.federation.deployment.operator.runs.present import SeenSite, nodes, seen_sites
from fedgrpo.federation.deployment.operator.runs.seen import (
    SeenRun,
    last_drops,
    names,
    seen_run,
    with_epsilon,
)
from fedgrpo.federation.deployment.operator.runs.watch.overview import Overview
from fedgrpo.federation.deployment.operator.runs.watch.todo import todo
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RunError


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
    run = with_epsilon(seen_run(folder))
    sites = _with_drops(seen_sites(Book(folder).sites(), known, now), run)
    seen = Overview(
        server=federation.server,
        version=VERSION,
        running=known is not None,
        sites=sites,
        run=run,
        problems=(),
        certificate_days=days_left(Path(federation.certificate), datetime.fromtimestamp(now, UTC)),
        free_bytes=shutil.disk_usage(folder).free,
        page=federation.page,
        time=now,
    )
    return replace(seen, problems=todo(seen))


def _with_drops(sites: tuple[SeenSite, ...], run: SeenRun | None) -> tuple[SeenSite, ...]:
    """Sites with why the run's rounds were closed without them."""
    if run is None:
        return sites
    found = last_drops(Path(run.directory))
    ours = names(sites)
    drops = {ours[node]: drop for node, drop in found.items() if node in ours}
    return tuple(replace(site, dropped=drops.get(site.name)) for site in sites)
