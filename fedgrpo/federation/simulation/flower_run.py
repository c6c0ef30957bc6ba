"""A simulated run through a real ``flwr run``, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from fedgrpo.federation.simulation.local_superlink import (
    LOG,
    LocalSuperLink,
    RunState,
    local_superlink,
)
from fedgrpo.federation.wire.app_bundle import find_app, stage_app
from fedgrpo.ground.callbacks import tell
from fedgrpo.ground.errors import RunFailedError
from fedgrpo.report.console import follow
from fedgrpo.report.reader import read_rows, read_status, read_summary
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Scalar, Settings

LINGER_S = 60.0
"""Seconds after the server has finished or failed in which Flower's own processes may end."""
ENDED_LATE = "the run is over; something of it did not end by itself, and was ended"
LOG_TAIL = 15
"""Lines of the log that are shown when nothing better tells why a run failed."""


def is_installed() -> bool:
    """Whether Flower's simulation runtime, which is Ray, is there."""
    return find_spec("ray") is not None


def run_in_flower(
    settings: Settings,
    run_dir: Path,
    *,
    near: Path,
    console: Console,
    callbacks: Sequence[object] = (),
    linger_s: float = LINGER_S,
) -> None:
    """Run what is left of a run under ``flwr run``, and show it meanwhile.

    Parameters
    ----------
    settings:
        Of the run, with absolute paths.
    run_dir:
        Claimed by this process.
    near:
        Where the Flower app is looked for, upwards; then the current directory.
    console:
        Where to show progress.
    callbacks:
        Told of each round as its row appears.
    linger_s:
        Seconds in which Flower's processes may end when the server has finished or failed. They
        are ended then, whatever they do, and the run is what it came to.

    Raises
    ------
    RunFailedError
        If the run began and failed.
    """
    started_at, cwd = time.time(), Path.cwd()
    with local_superlink(run_dir, cwd) as superlink:
        app = stage_app(find_app(near, cwd), superlink.scratch / "fedgrpo-app")
        config = settings.to_run_config() | {
            "run.directory": str(run_dir),
            "run.started_at": started_at,
        }
        run_id = superlink.submit(app, config, federation_options(settings))
        view = _View(run_dir, settings.rounds, console, tuple(callbacks), linger_s, started_at)
        state = view.follow(superlink, run_id)
    if not state.completed or read_summary(run_dir) is None:
        raise _failed(run_dir, state, started_at)


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


@dataclass(frozen=True)
class _View:
    """Who looks at a run, and for how long."""

    run_dir: Path
    rounds: int
    console: Console
    callbacks: tuple[object, ...]
    linger_s: float
    started_at: float
    told: set[int] = field(default_factory=set)
    """Rounds of which the callbacks have heard."""

    def follow(self, superlink: LocalSuperLink, run_id: int) -> RunState:
        """Show progress to the console and the callbacks until Flower says that the run is over."""
        self.told.update(row.round for row in read_rows(self.run_dir))
        while True:
            ended = superlink.stream_log(run_id)
            follow(self.run_dir, self.rounds, partial(self._over, ended), self.console)
            if self._is_past():
                self.console.print(f"[yellow]{ENDED_LATE}[/]", highlight=False, soft_wrap=True)
                return RunState("finished:completed", ENDED_LATE)
            if not superlink.alive:
                return RunState("finished:failed", "Flower's SuperLink ended unexpectedly")
            if (state := superlink.state(run_id)).over:
                return state
            time.sleep(1.0)  # The stream broke off although the run goes on: look again.

    def _over(self, finished: Callable[[], bool]) -> bool:
        """Whether the run is over; whenever that is asked, callbacks are told of new rows."""
        over = finished() or self._is_past()
        for row in read_rows(self.run_dir) if self.callbacks else ():
            if row.round not in self.told:
                self.told.add(row.round)
                tell(self.callbacks, "on_round", row)
        return over

    def _is_past(self) -> bool:
        """Whether the server ended, well or not, so long ago that something else hangs, such as a
        client.
        """
        status = read_status(self.run_dir)
        if status is None or status.state not in ("finished", "failed"):
            return False
        return self.started_at <= status.time < time.time() - self.linger_s


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
