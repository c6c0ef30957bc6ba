"""``fedgrpo run``: what is checked before a run is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedgrpo.federation.deployment.operator.folder import StateFolder
from fedgrpo.federation.deployment.operator.runs.present import SeenSite
from fedgrpo.federation.deployment.operator.runs.seen import SeenRun, seen_run
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RunError, SettingsError, VersionError
from fedgrpo.report.run_directory import choose
from fedgrpo.settings import Scalar, Settings
from fedgrpo.settings.scenario import absolute_source

RUN_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,60}[A-Za-z0-9])?")
UNDER_WAY = ("submitted", "waiting", "running", "interrupted")
_FITTING: tuple[Mapping[str, Scalar], ...] = (
    {"secure.bucket_size": 3},
    {"secure.bucket_size": 3, "robust.rule": "mean", "robust.trim": 0},
)
"""What may let fewer sites do, the stronger first."""


def check_sites(settings: Settings, sites: tuple[SeenSite, ...]) -> None:
    """Refuse a run for which too few sites take part, and say what those that do would need.

    Raises
    ------
    SettingsError
        With settings for as many sites as there are, if any would do.
    """
    part, needed = sum(bool(site.node) for site in sites), settings.federation.min_clients
    if part >= needed:
        return
    fitting = "; ".join(words_for(settings, count) for count in dict.fromkeys((part, 3, 4, 5)))
    raise SettingsError(
        f"federation.min_clients = {needed}, and {part} sites take part",
        cure=f"invite and confirm {needed - part} more; or set: {fitting}",
    )


def check_versions(sites: tuple[SeenSite, ...]) -> None:
    """Refuse a run while sites run another version than this server.

    Raises
    ------
    VersionError
        With the list of them.
    """
    if others := ", ".join(f"{site.name} ({site.version})" for site in sites if site.differs):
        raise VersionError(
            f"this server runs fedgrpo {VERSION}, and not so {others}",
            cure=f"have them install {VERSION}, from the wheel that you name, and start their nodes"
            " again, which tells it here; 'fedgrpo revoke SITE' shuts out who does not come along",
        )


def words_for(settings: Settings, sites: int) -> str:
    """Say what a number of sites would need."""
    changed = next(fitting(settings, sites), None)
    if changed is None:
        return f"for {sites} sites there are no settings like these"
    keys = ", ".join(f"{key} = {value!r}" for key, value in changed.items())
    return f"for {sites} sites {keys}"


def fitting(settings: Settings, sites: int) -> Iterator[Mapping[str, Scalar]]:
    """Yield changes under which a number of sites would do, the stronger first."""
    flat = settings.to_run_config()
    for more in _FITTING:
        changed = {"federation.min_clients": sites, **more}
        try:
            Settings.from_run_config(flat | changed)
        except SettingsError:
            continue
        yield changed


def wish_for(folder: Path, runs: Path, name: str, settings: Settings) -> Wish:
    """Decide on the run's directory, and write down what is wanted: not yet kept.

    Parameters
    ----------
    folder:
        Of the server.
    runs:
        Folder of run directories.
    name:
        Of the run. An unfinished one of that name is gone on with.
    settings:
        Of the run.

    Raises
    ------
    RunError, SettingsError
        If the name cannot be used, another run is under way, or the run of that name has ended or
        has other settings.
    """
    if not RUN_NAME.fullmatch(name):
        raise SettingsError(
            f"--name {name!r} cannot name a run", cure="use letters, digits and hyphens: spring"
        )
    before = seen_run(folder)
    if before and before.state in UNDER_WAY and before.name != name:
        raise RunError(
            f"run {before.name} is under way", cure="wait for its end, or end it: fedgrpo stop"
        )
    directory = runs / name
    if (directory / "summary.json").exists():
        raise RunError(
            f"run {name} has ended, and there is nothing left to do",
            cure=f"see fedgrpo report {directory}; name another run for a new one: --name",
        )
    chosen = choose(name, settings, run_dir=directory, fresh=False, base=runs, command="run")
    with chosen.claim(settings):
        pass  # The settings are noted; the server app holds a lock of its own.
    source = settings.evaluation.source
    config = settings.to_run_config() | {
        "run.directory": str(chosen.path),
        "evaluation.source": absolute_source(source, Path.cwd()),
    }
    return Wish.new(name, chosen.path, config)


def goes_on(before: SeenRun | None, wish: Wish) -> bool:
    """Whether the run is under way already, and need only be watched."""
    return bool(before and before.name == wish.run and before.state in UNDER_WAY)


def ask(folder: Path, wish: Wish) -> None:
    """Have the server begin the run, or go on with it; raises RunError if it cannot be kept."""
    StateFolder.of(folder)
    os.umask(0o077)
    wish.write(folder)
