"""TinyLoRA's basis, which is the singular vectors of every layer, computed once a base and rank.

For 135 M parameters it takes ten seconds, and each holder of a simulation and each command that
loads an adapter would compute it again. It is kept in the user's own cache, by the bytes of the
weights that it is of; whoever cannot write there computes it each time.

Adversary: other users of the machine, where the cache was put into a folder that they may write to.
A basis of theirs would be the start of a run, and nobody could tell it from the weights' own: such
a folder is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tinylora.layer import TinyLoraLayer
from peft.utils.other import transpose
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedgrpo.ground.files import replace_file

WORTH_KEEPING = 10_000_000
"""Values of a base's matrices below which the basis is computed in less than a second."""


def cache_folder() -> Path:
    """Where bases are kept: ``$XDG_CACHE_HOME/fedgrpo``, or ``~/.cache/fedgrpo``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedgrpo"


@contextlib.contextmanager
def kept_basis(name: str, values: int) -> Iterator[None]:
    """Let TinyLoRA layers that are made meanwhile take their basis from the disk, and keep there
    what was not on it.

    Parameters
    ----------
    name:
        Of the file: of base and rank.
    values:
        Number of values of the base's matrices.
    """
    if values < WORTH_KEEPING:
        yield
        return
    path = cache_folder() / f"{name}.safetensors"
    own = _own(path.parent)
    known = _read(path) if own else {}
    before = len(known)

    def svd(layer: Any, adapter: str, rank: int, fan_in_fan_out: Any) -> None:
        key = _key(layer.get_base_layer().weight)
        if not _take(layer, adapter, known, key, rank):
            plain(layer, adapter, rank, fan_in_fan_out)
            known[f"{key}.A"] = layer.tinylora_A[adapter]
            known[f"{key}.B"] = layer.tinylora_B[adapter]

    made: Any = TinyLoraLayer  # PEFT has no other place to put a basis into.
    plain, made._init_svd = made._init_svd, svd
    try:
        yield
    finally:
        made._init_svd = plain
    if own and len(known) > before:
        # A home that is not there, not ours or full costs time, and no run.
        with contextlib.suppress(OSError):
            replace_file(path, save(known), durable=False)


def _own(folder: Path) -> bool:
    """Make the folder, and say whether nobody else may write to it."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and not status.st_mode & 0o022
        )
    return False


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError):
        return {}


def _key(weight: Tensor) -> str:
    """Hash of a weight's shape, precision and bytes."""
    plain = weight.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(plain.shape)} {plain.dtype}".encode())
    digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _take(layer: Any, adapter: str, known: dict[str, Tensor], key: str, rank: int) -> bool:
    """Give a layer its basis, if the disk has one that fits."""
    a, b = known.get(f"{key}.A"), known.get(f"{key}.B")
    weight = layer.get_base_layer().weight
    rows, columns = transpose(weight, getattr(layer, "fan_in_fan_out", False)).shape
    held = min(rank, rows, columns)
    if a is None or b is None or a.shape != (held, columns) or b.shape != (rows, held):
        return False
    layer.tinylora_A[adapter] = a.to(weight.dtype)
    layer.tinylora_B[adapter] = b.to(weight.dtype)
    layer.r[adapter] = held
    return True
