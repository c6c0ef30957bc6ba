"""What a tracker is, and the run that it is told of."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedgrpo.ground.callbacks import Callback
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.parts import Registry
from fedgrpo.ground.run_files import TRACKED
from fedgrpo.report.trackers.names import figures


@dataclass(frozen=True)
class Tracked:
    """The run that is told of: its directory, and its settings with dotted keys."""

    directory: Path
    settings: Mapping[str, bool | int | float | str]

    @property
    def name(self) -> str:
        """That of the directory."""
        return self.directory.name

    @property
    def id(self) -> str:
        """Drawn once a run and kept in its directory: all processes that go on with it say the
        same, and another run in a folder of this name says another. 16 hexadecimal digits.
        """
        file = self.directory / TRACKED
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, secrets.token_hex(8).encode())
        return file.read_text()

    @property
    def unique_name(self) -> str:
        """Name and a piece of the id, for trackers that know a run by its name alone."""
        return f"{self.name}-{self.id[:6]}"


class Tracker(Callback, ABC):
    """Passes the figures of each row on, under TRL's names where it has one."""

    def on_round(self, row: Any) -> None:
        """Pass a row on: a federated round, or a step of training alone."""
        self.log(figures(row), row.round)

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Keep the figures of a round or step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left. The run is over, or goes on in another process."""


TRACKERS: Registry[Callable[[Tracked], Tracker]] = Registry("run.report_to")
register_tracker = TRACKERS.register
