"""One simulated run from a scenario file to its report, through a real ``flwr run``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fedgrpo.federation.simulation.app_bundle import find_app, stage_app
from fedgrpo.federation.simulation.local_superlink import (
    LOG,
    LocalSuperLink,
    RunState,
    local_superlink,
)
from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.ground.errors import RunError, RunFailedError, RunInterruptedError
from fedgrpo.report.console import follow, print_summary
from fedgrpo.report.plots import plot_run
from fedgrpo.report.reader import read_rows, read_status, read_summary
from fedgrpo.report.run_directory import choose
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Scalar, Settings
from fedgrpo.settings.scenario import load_scenario

LOG_TAIL = 15
"""Lines of the log that are shown when nothing better tells why a run failed."""


def simulate(
    scenario: Path,
    *,
    overrides: Mapping[str, object] | None = None,
    run_dir: Path | None = None,
    fresh: bool = False,
    console: Console | None = None,
) -> Path:
    """Run a scenario in Flower's simulation runtime and report on it.

    The same call resumes a run that was killed or interrupted. Everything is checked before the
    first process starts, and no process is left when this returns, raises or is killed.

    Parameters
    ----------
    scenario:
        TOML file of settings.
    overrides:
        Dotted keys with values that take the place of the scenario's.
    run_dir:
        Where to write. The default is ``runs/SCENARIO``, with a number if that one is finished.
    fresh:
        Begin a new run beside an unfinished one.
    console:
        Where to show progress. The default is standard output.

    Returns
    -------
    Path
        The run directory.

    Raises
    ------
    FedGRPOError
        Before the start, of the kind that fits.
    RunFailedError
        If the run began and failed.
    RunInterruptedError
        On Ctrl-C.
    """
    console, cwd, started_at = console or Console(), Path.cwd(), time.time()
    settings = load_scenario(scenario, overrides or {}, cwd)
    chosen = choose(
        scenario.stem,
        settings,
        run_dir=run_dir,
        fresh=fresh,
        base=cwd,
    )
    for warning in preflight(settings):
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)
    with chosen.claim(settings):
        verb = "resumes" if chosen.resumes else "begins"
        console.print(f"{scenario.stem} {verb} in {chosen.path}", highlight=False, soft_wrap=True)
        try:
            with local_superlink(chosen.path, cwd) as superlink:
                app = stage_app(
                    find_app(scenario.resolve().parent, cwd), superlink.scratch / "fedgrpo-app"
                )
                config = settings.to_run_config() | {
                    "run.directory": str(chosen.path),
                    "run.started_at": started_at,
                }
                run_id = superlink.submit(app, config, federation_options(settings))
                state = _follow(superlink, run_id, chosen.path, settings.rounds, console)
        except KeyboardInterrupt:
            raise _interrupted(chosen.path) from None
        if not state.completed or read_summary(chosen.path) is None:
            raise _failed(chosen.path, state, started_at)
        report(chosen.path, console)
    return chosen.path


def federation_options(settings: Settings) -> dict[str, Scalar]:
    """Return Flower's simulation options: how many virtual nodes, and what each needs."""
    sim = settings.simulation
    options: dict[str, Scalar] = {
        "num-supernodes": sim.clients,
        "client-resources-num-cpus": sim.cpus_per_client,
        "client-resources-num-gpus": float(sim.gpus_per_client),
        "init-args-logging-level": "ERROR",
    }
    # Ray would start an actor for each core, also for more of them than there are clients.
    # Otherwise its own count is the better one: it sees a container's limits.
    needed = sim.clients * sim.cpus_per_client
    return options | ({"init-args-num-cpus": needed} if needed < (os.cpu_count() or 1) else {})


def report(run_dir: Path, console: Console) -> None:
    """Draw a run's picture and print its summary, or how far it has come.

    Raises
    ------
    RunError
        If there is no run, or it has not finished a round.
    """
    if not (read_rows(run_dir) if run_dir.is_dir() else []):
        raise RunError(f"{run_dir} holds no run with a finished round", cure="check the path")
    plot_run(run_dir)
    summary, status = read_summary(run_dir), read_status(run_dir)
    if summary is not None:
        print_summary(summary, console, run_dir)
    elif status is not None:
        console.print(f"Not finished: {status.state} in round {status.round} of {status.rounds}")


def _follow(
    superlink: LocalSuperLink, run_id: int, run_dir: Path, rounds: int, console: Console
) -> RunState:
    """Show progress until Flower says that the run is over."""
    while True:
        follow(run_dir, rounds, superlink.stream_log(run_id), console)
        if not superlink.alive:
            return RunState("finished:failed", "Flower's SuperLink ended unexpectedly")
        if (state := superlink.state(run_id)).over:
            return state
        time.sleep(1.0)  # The stream broke off although the run goes on: look again.


def _interrupted(run_dir: Path) -> RunInterruptedError:
    status = read_status(run_dir)
    where = f"in round {status.round}" if status and status.round else "before round 1"
    problem, cure = f"interrupted {where}", "the same command resumes"
    RunWriter(run_dir).interrupt(problem, cure)
    return RunInterruptedError(problem, cure=cure)


def _failed(run_dir: Path, state: RunState, started_at: float) -> RunFailedError:
    """Explain a failure: what the server app noted, else Flower's words and the end of the log."""
    status = read_status(run_dir)
    if status and status.state == "failed" and status.time >= started_at:
        return RunFailedError(status.problem, cure=status.cure or f"see {run_dir / LOG}")
    tail = ""
    with contextlib.suppress(OSError):
        lines = (run_dir / LOG).read_text("utf-8", errors="replace").splitlines()
        tail = "\n".join(["", *lines[-LOG_TAIL:]])
    problem = f"the run ended as {state.status}: {state.details}"
    RunWriter(run_dir).fail(problem, f"see {run_dir / LOG}")
    return RunFailedError(problem + tail, cure=f"see {run_dir / LOG}; the same command resumes")
