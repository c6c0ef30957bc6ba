"""The command line: ``fedgrpo simulate``, ``report`` and ``settings``."""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedgrpo.errors import FedGRPOError, SettingsError

REFUSED, FAILED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Federated reinforcement learning of language models: private, robust and secure at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedgrpo {version('fedgrpo')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None: ...


@app.command("simulate")
def _simulate(
    scenario: Annotated[Path, typer.Argument(help="TOML file of settings.", show_default=False)],
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to write. An unfinished run of the same settings there is resumed.  "
            "[default: runs/SCENARIO]",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new run beside an unfinished one.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Put a value in the place of the scenario's, for example --set rounds=3. "
            "May be repeated. `fedgrpo settings` lists the keys.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a scenario with simulated data holders in Flower's simulation runtime.

    Everything is checked before anything starts. A run that was killed or interrupted is resumed by
    the same command.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 interrupted.
    """
    with _explained():
        from fedgrpo.federation.simulate import simulate

        # `kill` ends a run as Ctrl-C does: noted in the run directory, and resumable.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        simulate(scenario, overrides=_parse(overrides or []), run_dir=run_dir, fresh=fresh)


@app.command("report")
def _report(
    run_dir: Annotated[
        Path, typer.Argument(help="Directory of a run, finished or not.", show_default=False)
    ],
) -> None:
    """Print the summary of a run and draw its picture again."""
    with _explained():
        from fedgrpo.federation.simulate import report

        report(run_dir, Console())


@app.command("settings")
def _settings(
    flower: Annotated[
        bool,
        typer.Option(
            "--flower",
            help="Print the defaults as the table that `flwr run` needs in pyproject.toml.",
        ),
    ] = False,
) -> None:
    """Print every setting with its type, default and meaning, as Markdown."""
    from fedgrpo.federation.app_bundle import config_table
    from fedgrpo.settings_reference import to_markdown

    typer.echo(config_table() if flower else to_markdown(), nl=False)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors into a message with a cure, and an exit code."""
    try:
        yield
    except FedGRPOError as error:
        console = Console(stderr=True)
        console.print(f"[bold red]{escape(error.problem)}[/]", highlight=False, soft_wrap=True)
        if error.cure:
            console.print(f"  cure: {escape(error.cure)}", highlight=False, soft_wrap=True)
        raise typer.Exit(_exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _exit_code(error: FedGRPOError) -> int:
    from fedgrpo.federation.simulate import RunFailedError, RunInterruptedError

    if isinstance(error, RunInterruptedError):
        return INTERRUPTED
    return FAILED if isinstance(error, RunFailedError) else REFUSED


def _parse(overrides: Sequence[str]) -> dict[str, object]:
    """Read ``key=value`` pairs. A value is TOML, or text without quotes: ``robust.rule=mean``."""
    parsed: dict[str, object] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {override!r} is no KEY=VALUE", cure="write --set rounds=3")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = value.strip()
    return parsed
