"""Dataclasses kept on disk, one safetensors file each: arrays as they are, all else as its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedgrpo.ground.codec import Folded, fold, unfold
from fedgrpo.ground.errors import ProtocolError, RunError
from fedgrpo.ground.files import replace_file

T = TypeVar("T")

_FACTS = "fedgrpo"


def write_kept(path: Path, value: object, *, mode: int = 0o666, durable: bool = True) -> None:
    """Write a dataclass so that a crash at any instant leaves the old file or the new one; for
    ``durable`` see :func:`fedgrpo.ground.files.replace_file`.
    """
    folded = fold(value)
    arrays = {name: np.ascontiguousarray(array) for name, array in folded.arrays.items()}
    content = save(arrays, metadata={_FACTS: folded.to_json()})
    replace_file(path, content, mode=mode, durable=durable)


def read_kept(kind: type[T], path: Path) -> T:
    """Read a dataclass, of which the file may hold more.

    Raises
    ------
    RunError
        If the file is damaged, or was written by a version that kept something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return unfold(kind, Folded.from_json(file.metadata()[_FACTS], arrays))
    except (SafetensorError, OSError, KeyError, TypeError, ProtocolError) as error:
        said = error.problem if isinstance(error, ProtocolError) else type(error).__name__
        raise RunError(
            f"{path} is damaged, or was written by another version of fedgrpo ({said})",
            cure="restore it from a copy, or begin a new run",
        ) from None
