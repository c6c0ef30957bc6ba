"""Killing a run at a chosen step: no clean-up happens, and what was being written is torn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


class KilledError(KeyboardInterrupt):
    """Stands for SIGKILL: whoever catches it can do nothing more. Nothing but an interruption gets
    through a node.
    """


class Power:
    """Counts the steps of a run, and fails at one of them.

    Steps are the operations that make something durable (syncing a file, renaming or linking it)
    and the messages to nodes and back. From the failure on, no file can be synced, renamed or
    removed.

    Parameters
    ----------
    monkeypatch:
        Of the test.
    fails_at:
        Step at which the power fails; None never.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> None:
        self.steps, self.fails_at, self.failed = 0, fails_at, False
        self._fsync, self._fstat = os.fsync, os.fstat
        monkeypatch.setattr(os, "fsync", self._sync)
        for name in ("replace", "link"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        monkeypatch.setattr(os, "unlink", self._powered(os.unlink))

    def step(self) -> None:
        """Go on, or fail here."""
        self.steps += 1
        self.failed = self.failed or self.steps == self.fails_at
        if self.failed:
            raise KilledError

    def _sync(self, descriptor: int) -> None:
        try:
            self.step()
        except KilledError:
            self._tear(descriptor)
            raise
        self._fsync(descriptor)

    def _tear(self, descriptor: int) -> None:
        """Lose the second half of what was written last, but nothing that was synced before."""
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_file():
            size = self._fstat(descriptor).st_size
            whole = path.read_bytes()[: size - 1].rfind(b"\n") + 1 if path.suffix == ".jsonl" else 0
            os.truncate(path, (whole + size) // 2)

    def _counted(self, operation: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.step()
            return operation(*arguments, **options)

        return counted

    def _powered(self, operation: Any) -> Any:
        def powered(*arguments: Any, **options: Any) -> Any:
            if self.failed:
                raise KilledError
            return operation(*arguments, **options)

        return powered
