"""``fedgrpo sweep``: many runs of one scenario, and the table that comes of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained

File = Annotated[Path, typer.Argument(help="TOML file of a sweep.", show_default=False)]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv", help="Results, one line a run.  [default: runs/FILE.csv]", show_default=False
    ),
]
Figure = Annotated[
    str, typer.Option(help="Column of the results for table and heat map, such as sampled:add.")
]
Table = Annotated[bool, typer.Option("--table", help="Run nothing: print the table so far.")]
Plot = Annotated[
    bool, typer.Option("--plot", help="Run nothing: draw the heat map so far, beside the results.")
]
Processes = Annotated[int, typer.Option(min=0, help="Runs side by side; 0 takes all cores.")]


def sweep(
    file: File,
    csv: Csv = None,
    figure: Figure = "sampled",
    table: Table = False,
    plot: Plot = False,
    processes: Processes = 0,
) -> None:
    """Run a scenario under rows and columns of changes, each with every seed, in one process a run.

    The same command goes on after an interruption with the runs that are missing.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 interrupted.
    """
    with explained():
        from fedgrpo.federation.simulation.sweep import heat_map, results
        from fedgrpo.federation.simulation.sweep.plan import read_sweep
        from fedgrpo.federation.simulation.sweep.running import run_missing
        from fedgrpo.ground.machine import usable_cores

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        read, path = read_sweep(file), csv or Path("runs") / f"{file.stem}.csv"
        if not (table or plot):
            run_missing(read, path, processes or usable_cores(), typer.echo)
        lines = results.read_results(path)
        if plot:
            picture = path.with_suffix(".png")
            heat_map.draw(read, results.values(read, lines, figure), figure, picture)
            typer.echo(f"Heat map: {picture}")
        if table or not plot:
            typer.echo(results.table(read, lines, figure))
