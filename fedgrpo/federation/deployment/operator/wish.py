"""The run that the operator wants, and what has become of it: two files, of one writer each."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import Scalar


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def name(cls) -> str:
        """File in the server's folder."""
        return f"{cls.__name__.lower()}.json"

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read it; None if there is none. Raises RunError if it cannot be read."""
        path = folder / cls.name()
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise RunError(
                f"{path} cannot be read ({type(error).__name__})",
                cure="remove it, and submit the run again by its name: fedgrpo run",
            ) from None

    def write(self, folder: Path) -> None:
        """Keep it, on disk when this returns."""
        replace_file(folder / self.name(), self.model_dump_json(indent=1).encode(), mode=0o600)


class Wish(_Kept):
    """Written by ``fedgrpo run`` and ``fedgrpo stop``.

    Attributes
    ----------
    number:
        Random, a new one for each time that a run is asked for.
    run:
        Name of the run.
    directory:
        Its run directory, absolute.
    config:
        Its settings as Flower takes them.
    since:
        Unix time, in seconds.
    stopped:
        Whether it is to end.
    """

    number: str
    run: str
    directory: str
    config: dict[str, Scalar]
    since: float
    stopped: bool = False

    @classmethod
    def new(cls, run: str, directory: Path, config: dict[str, Scalar]) -> Wish:
        """Wish for a run from now on."""
        return cls(
            number=secrets.token_hex(8),
            run=run,
            directory=str(directory),
            config=config,
            since=time.time(),
        )


class Submitted(_Kept):
    """Written by the server.

    Attributes
    ----------
    wish:
        Number of the wish.
    run:
        Flower's id.
    server:
        Drawn by the server process that has submitted it.
    times:
        How often it was submitted.
    since:
        Unix time, in seconds, of the last time.
    problem:
        Why it could not be submitted; empty if it was.
    """

    wish: str
    run: int
    server: str
    times: int
    since: float
    problem: str = ""
