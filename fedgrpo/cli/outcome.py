"""How a command ends: a message with a cure, and an exit code."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

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
    """Turn errors into a message with a cure, and an exit code: the one place for all commands."""
    try:
        yield
    except FedGRPOError as error:
        _tell(error.problem, error.cure)
        raise typer.Exit(_exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _tell(
            f"{place}{error.strerror or type(error).__name__}",
            "see whether this place can be read and written, and has room",
        )
        raise typer.Exit(FAILED) from None
    except Exception as error:
        _tell(*_unexpected(error))
        raise typer.Exit(FAILED) from None


def _tell(problem: str, cure: str) -> None:
    console = Console(stderr=True)
    console.print(f"[bold red]{escape(problem)}[/]", highlight=False, soft_wrap=True)
    if cure:
        console.print(f"  cure: {escape(cure)}", highlight=False, soft_wrap=True)


def _unexpected(error: Exception) -> tuple[str, str]:
    """What is to be said of an error that nobody foresaw. Its text may quote a prompt."""
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return (
            "there is not enough memory",
            "lower grpo.tokens_per_batch, grpo.group_size or grpo.max_completion_length; "
            "fedgrpo dry-run measures what a round needs",
        )
    kept = _kept(error)
    where = f"; the traceback is in {kept}" if kept else ""
    return (
        f"this is a bug in fedgrpo {version('fedgrpo')}: {kind}{where}",
        "report it with that file, once you have looked that it quotes nothing private",
    )


def _kept(error: Exception) -> str:
    """Write the traceback into a file that its owner alone can read; empty if there is no room."""
    try:
        handle, path = tempfile.mkstemp(prefix="fedgrpo-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return ""
    return path


def _exit_code(error: FedGRPOError) -> int:
    if isinstance(error, RunInterruptedError):
        return INTERRUPTED
    return FAILED if isinstance(error, RunFailedError | LedgerError) else REFUSED
