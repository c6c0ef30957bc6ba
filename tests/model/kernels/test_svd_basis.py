"""TinyLoRA's basis on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from fedgrpo.model.base import load_base
from fedgrpo.model.kernels import svd_basis
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings, ModelSettings


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(svd_basis, "WORTH_KEEPING", 1)
    return tmp_path / "fedgrpo"


def made(rank: int = 2) -> Adapter:
    return Adapter(load_base(ModelSettings()), AdapterSettings(kind="tiny_lora", rank=rank))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the matrices that are decomposed from here on."""
    plain, sizes = torch.linalg.svd, list[int]()

    def svd(matrix: torch.Tensor, **options: bool) -> tuple[torch.Tensor, ...]:
        sizes.append(matrix.numel())
        return plain(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", svd)
    return sizes


def test_a_basis_is_computed_once_a_base_and_rank_and_then_read_to_the_bit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made().state()
    sizes = counted(monkeypatch)
    assert made().state().basis_hash == first.basis_hash
    assert sizes == []
    assert made(rank=1).state().basis_hash != first.basis_hash
    assert sizes
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_other_weights_of_the_same_name_get_a_basis_of_their_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made()
    base = load_base(ModelSettings())
    layer = next(m for m in base.model.modules() if isinstance(m, torch.nn.Linear))
    layer.weight.data = layer.weight.data + 1.0
    sizes = counted(monkeypatch)
    Adapter(base, AdapterSettings(kind="tiny_lora", rank=2))
    assert sizes == [layer.weight.numel()]


@pytest.mark.parametrize("content", [b"", b"no tensors"])
def test_a_damaged_file_or_a_home_that_cannot_be_written_costs_time_alone(
    cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made().state().basis_hash
    (kept,) = cache.glob("*.safetensors")
    kept.write_bytes(content)
    assert made().state().basis_hash == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert made().state().basis_hash == expected


def test_a_basis_from_where_others_may_write_is_not_believed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made().state().basis_hash
    (kept,) = cache.glob("*.safetensors")
    forged = {name: torch.ones_like(t) for name, t in load(kept.read_bytes()).items()}
    kept.write_bytes(save(forged))
    assert made().state().basis_hash != expected, "in a folder of our own it would be taken"
    cache.chmod(0o777)
    assert made().state().basis_hash == expected
    cache.rename(cache.with_name("another"))
    cache.symlink_to(cache.with_name("another"))
    assert made().state().basis_hash == expected


def test_a_small_base_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made()
    assert list(tmp_path.iterdir()) == []
