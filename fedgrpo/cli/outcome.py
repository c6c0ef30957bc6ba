"""How a command ends: a message with a cure, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from fedgrpo.ground.errors import FedGRPOError, LedgerError, RunFailedError, RunInterruptedError

REFUSED, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: refused before the start, failed on the way, interrupted."""
UNENDED = 3
"""Exit code where a ledger fits as far as it goes, and the run has not come to its end."""


@contextmanager
def explained() -> Iterator[None]:
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
    if isinstance(error, RunInterruptedError):
        return INTERRUPTED
    return FAILED if isinstance(error, RunFailedError | LedgerError) else REFUSED
