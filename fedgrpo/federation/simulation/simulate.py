"""One simulated run from settings to its report, in this process or through ``flwr run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fedgrpo.federation.simulation.batched.coverage import check_attack
from fedgrpo.federation.simulation.flower_run import is_installed, run_in_flower
from fedgrpo.federation.simulation.in_process import run_in_process
from fedgrpo.federation.simulation.local_superlink import LOG
from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.ground.errors import RunInterruptedError
from fedgrpo.report.console import conclude
from fedgrpo.report.reader import read_status
from fedgrpo.report.run_directory import choose
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings.scenario import load_scenario

WITHOUT_RAY = (
    "Ray is not installed: clients run one after another in this process. For Flower's simulation "
    "runtime, pip install 'fedgrpo[simulation]'"
)


def simulate(
    scenario: Path,
    *,
    overrides: Mapping[str, object] | None = None,
    run_dir: Path | None = None,
    fresh: bool = False,
    in_process: bool = False,
    console: Console | None = None,
) -> Path:
    """Run a scenario and report on it.

    The same call resumes a run that was killed or interrupted, also one that was begun the other
    way. Everything is checked before anything starts, and no process is left when this returns,
    raises or is killed.

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
    in_process:
        Run everything in this process, without Flower's simulation runtime. So it is
        anyway, and said, where that is not installed.
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
        If the run began and failed, or none of its rounds counted.
    RunInterruptedError
        On Ctrl-C.
    """
    console, cwd = console or Console(), Path.cwd()
    settings = load_scenario(scenario, overrides or {}, cwd)
    chosen = choose(scenario.stem, settings, run_dir=run_dir, fresh=fresh, base=cwd)
    for warning in preflight(settings):
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)
    if not in_process and not is_installed():
        console.print(f"[yellow]{escape(WITHOUT_RAY)}[/]", highlight=False, soft_wrap=True)
        in_process = True
    check_attack(settings, in_process=in_process)
    with chosen.claim(settings):
        verb = "resumes" if chosen.resumes else "begins"
        console.print(f"{scenario.stem} {verb} in {chosen.path}", highlight=False, soft_wrap=True)
        try:
            if in_process:
                run_in_process(settings, chosen.path, console=console)
            else:
                near = scenario.resolve().parent
                run_in_flower(settings, chosen.path, near=near, console=console)
        except KeyboardInterrupt:
            raise interrupted(chosen.path) from None
        log = chosen.path / LOG
        cure = f"see {log} for what clients ran into, mend it, and begin anew"
        conclude(chosen.path, console, cure)
    return chosen.path


def interrupted(run_dir: Path) -> RunInterruptedError:
    """Note in the run directory that it can be resumed, and say so."""
    status = read_status(run_dir)
    where = f"in round {status.round}" if status and status.round else "before round 1"
    problem, cure = f"interrupted {where}", "the same command resumes"
    RunWriter(run_dir).interrupt(problem, cure)
    return RunInterruptedError(problem, cure=cure)
