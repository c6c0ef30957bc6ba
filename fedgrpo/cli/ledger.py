"""``fedgrpo ledger``: check the record of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgrpo.cli.outcome import UNENDED, explained

if TYPE_CHECKING:
    from fedgrpo.ledger import Verdict

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
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT:SIZE",
            help="What an earlier verify, or another reader, was shown of this ledger.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Replay a run's ledger offline: hashes, signatures, epsilon, and the final adapter's files.

    Exit code: 0 if everything fits and the run has ended; 3 if everything fits and the run has not
    ended, so that entries may be missing at the end; 1 if something does not fit, with the first
    entry that does not; 2 if there is no ledger.
    """
    with explained():
        from fedgrpo.ledger import KnownRoot
        from fedgrpo.ledger import verify as replay_run

        known = None if expect is None else KnownRoot.parse(expect)
        verdict = replay_run(run_dir, key=key, expected=known)
        for line in _lines(run_dir, verdict):
            typer.echo(line)
        if not verdict.ended:
            raise typer.Exit(UNENDED)


def _lines(run_dir: Path, verdict: Verdict) -> Iterator[str]:
    """What a ledger that holds says."""
    state = "and its end. Everything fits." if verdict.ended else f"so far. {_UNENDED}"
    yield f"{run_dir}: {verdict.rounds} rounds {state}"
    if verdict.aborted:
        yield f"  {verdict.aborted} of them changed nothing"
    for spent in verdict.epsilon:
        yield (
            f"  {spent.unit}: epsilon {spent.epsilon:.4f} at delta {spent.delta:g} "
            f"against {spent.adversary}"
        )
    for member, size in verdict.cosigned.items():
        yield f"  member {member} vouches for the first {size} entries"
    yield f"  root:size {verdict.checkpoint.root}:{verdict.checkpoint.size}"
    yield f"  signed by {verdict.public_key}"


_UNENDED = (
    "What is here fits, but the run has not ended: it goes on, was given up, or entries were cut "
    "off at the end. Compare root:size with what others were shown (--expect)."
)
