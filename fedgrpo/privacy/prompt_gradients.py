"""Which units take part, and the gradient of each row: the sensitive half of prompt-level privacy.

A row is one prompt with all its completions. Fused LoRA layers give one gradient a row themselves,
and Opacus does for other linear layers. A unit's rows are
summed before they are clipped (:mod:`fedgrpo.privacy.grid`). What makes the bound hold lies with
the caller: rows that cannot reach each other (:mod:`fedgrpo.grpo.isolated`), advantages within the
group only, constant divisors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor, nn

from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.model.kernels.low_rank import ROW_GRADIENTS, gradients_by_row, is_fused

COIN_BITS = 53
"""Resolution of the sampling coins: that of a float64's mantissa."""


def sampled_units(names: Sequence[str], rate: float, key: bytes) -> list[str]:
    """Choose each unit independently with probability ``rate``, in an order of their own.

    Privacy amplification by sampling holds against an adversary who does not learn the sample, so
    the coins come from AES-256 under a secret key, never from a seeded generator. A unit's coin is
    a function of the key and its name, and so is its place in the order: neither depends on which
    other units there are. AES is a pseudorandom permutation, and names differ in their first 16
    bytes, so coins and places look independent and uniform to whoever does not hold the key.

    Parameters
    ----------
    names:
        Distinct SHA-256 names in hex.
    rate:
        In (0, 1].
    key:
        32 secret bytes that serve this one draw.
    """
    blocks = b"".join(bytes.fromhex(name)[:16] for name in names)
    coins, places = (_permuted(blocks, derive_key(key, use)) for use in ("coins", "order"))
    taken = (coins[:, 0] >> np.uint64(64 - COIN_BITS)) < np.uint64(int(rate * 2**COIN_BITS))
    chosen = np.flatnonzero(taken).tolist()
    return [names[i] for i in sorted(chosen, key=lambda i: (*places[i].tolist(), names[i]))]


def _permuted(blocks: bytes, key: bytes) -> NDArray[np.uint64]:
    """AES-256 of each block of 16 bytes by itself, as uint64 of shape (n, 2)."""
    # Each block is a distinct input of a pseudorandom permutation, not a message to hide.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return np.frombuffer(encryptor.update(blocks), "<u8").reshape(-1, 2)


def row_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], rows: int
) -> Tensor:
    """Gradient of a loss, which is a sum over rows, for each row.

    Parameters
    ----------
    model:
        Holds the parameters.
    parameters:
        Trainable ones, in the order of the flat vector.
    loss:
        Runs the forward pass of ``rows`` rows and returns the scalar.
    rows:
        Number of rows, R. More than one only where Opacus has hooks for all parameters.

    Returns
    -------
    float64 on the CPU, shape (R, d); not finite in rows whose gradient is not.

    Raises
    ------
    PrivacyError
        If Opacus has no hook for these parameters and there are several rows.
    """
    if rows == 1:
        return _flat(torch.autograd.grad(loss(), parameters), 1)
    if not hookable(model, parameters):
        raise PrivacyError(
            f"a batch of {rows} prompts for parameters outside linear layers",
            cure="put one prompt into each batch, or use LoRA",
        )
    if is_fused(model, parameters):
        with gradients_by_row(model):
            loss().backward()
            return _flat([getattr(p, ROW_GRADIENTS) for p in parameters], rows)
    with _grad_samples(model, parameters), warnings.catch_warnings():
        # In the first layer only the weight needs a gradient; Opacus' hook still gets what it uses.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        loss().backward()
        return _flat([getattr(p, ROW_GRADIENTS) for p in parameters], rows)


def hookable(model: nn.Module, parameters: Sequence[nn.Parameter]) -> bool:
    """Tell whether Opacus' hooks cover all parameters: they must be weights of linear layers.

    TinyLoRA's are not; those need one backward pass a prompt.
    """
    covered = {
        id(p)
        for m in model.modules()
        if isinstance(m, nn.Linear)
        for p in m.parameters(recurse=False)
    }
    return all(id(p) in covered for p in parameters)


@contextmanager
def _grad_samples(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let a backward pass fill ``parameter.grad_sample``; leave no trace behind.

    Opacus looks only at modules in training mode, so just the parameters' own modules are put into
    it: dropout elsewhere stays off.
    """
    from opacus.grad_sample import GradSampleHooks

    wanted = {id(p) for p in parameters}
    owners = [
        m for m in model.modules() if any(id(p) in wanted for p in m.parameters(recurse=False))
    ]
    hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=False)
    for module in owners:
        module.training = True
    try:
        yield
    finally:
        hooks.cleanup()
        for module in owners:
            module.training = False
        for parameter in parameters:
            parameter.grad = None


def _flat(gradients: Sequence[Tensor], rows: int) -> Tensor:
    return torch.cat([g.detach().reshape(rows, -1).double().cpu() for g in gradients], dim=1)
