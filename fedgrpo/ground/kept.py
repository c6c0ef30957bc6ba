"""Dataclasses in the safetensors format, arrays as they are and all else as its JSON: one file each
on a disk, or one piece of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from fedgrpo.ground.codec import CURE, Folded, fold, unfold
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


def pack(value: object) -> bytes:
    """Write a dataclass as bytes."""
    folded = fold(value)
    facts = np.frombuffer(folded.to_json().encode(), np.uint8)
    return pack_arrays({_FACTS: facts} | folded.arrays)


def unpack(kind: type[T], data: bytes) -> T:
    """Invert :func:`pack`; raises ProtocolError."""
    arrays = unpack_arrays(data)
    facts = arrays.pop(_FACTS, np.zeros(0, np.uint8))
    return unfold(kind, Folded.from_json(facts.tobytes(), arrays))


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write arrays as bytes, of which names, shapes and dtypes decide how many there are."""
    return bytes(save({name: np.asarray(array, order="C") for name, array in arrays.items()}))


def unpack_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Read arrays.

    Adversary: whoever wrote the bytes. What is read is arrays of numbers, no larger than what came.

    Raises
    ------
    ProtocolError
        If it is anything else.
    """
    try:
        return load(data)
    except Exception:  # Of the library's own class, or of NumPy's, for what is forged.
        raise ProtocolError(f"{len(data)} bytes of arrays cannot be read", cure=CURE) from None
