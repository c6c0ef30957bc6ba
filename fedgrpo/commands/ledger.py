"""``fedgrpo ledger``: check the record of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.commands.outcome import explained

group = typer.Typer(
    help="The record of a run, which anyone can check without the server.", no_args_is_help=True
)


@group.command("verify")
def verify(
    run_dir: Annotated[Path, typer.Argument(help="Directory of the run.", show_default=False)],
    key: Annotated[
        str | None,
        typer.Option(
            help="The server's public key (hex), if you know it from elsewhere.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Replay a run's ledger offline: hashes, signatures, epsilon, and the final adapter's files.

    Exit code: 0 if everything fits, 1 if not, with the first entry that does not; 2 if there is no
    ledger.
    """
    with explained():
        from fedgrpo.ledger import verify as replay_run

        verdict = replay_run(run_dir, key=key)
        state = "and its end" if verdict.ended else "so far: the run has not ended"
        typer.echo(f"{run_dir}: {verdict.rounds} rounds {state}. Everything fits.")
        if verdict.aborted:
            typer.echo(f"  {verdict.aborted} of them changed nothing")
        for spent in verdict.epsilon:
            typer.echo(
                f"  {spent.unit}: epsilon {spent.epsilon:.4f} at delta {spent.delta:g} "
                f"against {spent.adversary}"
            )
        for member, size in verdict.cosigned.items():
            typer.echo(f"  member {member} vouches for the first {size} entries")
        typer.echo(f"  root {verdict.checkpoint.root} of {verdict.checkpoint.size} entries")
        typer.echo(f"  signed by {verdict.public_key}")
