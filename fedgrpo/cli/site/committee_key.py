"""``fedgrpo committee-key``: the keys of a committee member."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained


def committee_key(
    file: Annotated[Path, typer.Argument(help="Where to write the private keys.")],
) -> None:
    """Draw a committee member's keys, write the private ones and print the public ones.

    The file gets mode 0600 and is never overwritten; if it exists, its public keys are printed. So
    is, on standard error, their fingerprint, to be compared with what a data holder's policy says.
    """
    with explained():
        from fedgrpo.site import fingerprint

        written = kept_line(file)
        typer.echo(written)
        typer.echo(f"fingerprint {fingerprint(written)}", err=True)


def kept_line(file: Path) -> str:
    """Public keys (128 hex digits) of a member, whose private ones are drawn if there are none."""
    from fedgrpo.secure.committee import Identity

    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(Identity.new().to_bytes())
    keys = Identity.from_bytes(file.read_bytes()).public
    return (keys.signing + keys.agreement).hex()
