"""Per-prompt gradients, clipped and summed: the sensitive half of prompt-level privacy.

The unit is one prompt with all its completions. Opacus gives one gradient a row; a prompt's rows
are summed *before* clipping (clipping rows would let a prompt move the sum by its number of rows
times C). What makes the bound hold lies with the caller: advantages within the group only, constant
divisors, prompts sampled by independent coins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy import float64
from numpy.typing import NDArray
from torch import Tensor, nn

from fedgrpo.derivation import keystream, new_key
from fedgrpo.errors import PrivacyError

OPACUS_RESULT = "grad_sample"
"""Attribute of a parameter in which Opacus leaves one gradient a row."""

COIN_BITS = 53
"""Resolution of the sampling coins: that of a float64's mantissa."""


@dataclass(frozen=True)
class ClippedSum:
    """What becomes of some prompts' gradients. Sensitive as a whole: only for the same machine.

    Attributes
    ----------
    vector:
        float64, shape (d,): their sum, each clipped.
    norms:
        float64, shape (m,): L2 norms before clipping of those that are finite and not zero.
    """

    vector: NDArray[float64]
    norms: NDArray[float64]


@dataclass(frozen=True)
class PromptBatch:
    """Rows of whole prompts, with the loss to differentiate.

    Attributes
    ----------
    loss:
        Runs the forward pass and returns a scalar that is a sum over rows.
    prompt_of_row:
        int64, shape (R,): which prompt a row belongs to. All rows of a prompt are in one batch.
    """

    loss: Callable[[], Tensor]
    prompt_of_row: Tensor


def poisson_sample(count: int, expected: float, key: bytes | None = None) -> list[int]:
    """Choose each of ``count`` prompts independently with probability ``expected / count``.

    Privacy amplification by sampling holds against an adversary who does not learn the sample, so
    the coins come from AES-256-CTR under a secret key, never from a seeded generator.

    Parameters
    ----------
    count, expected:
        Prompts that there are, at least 1, and prompts to be chosen on average.
    key:
        32 secret bytes that serve this one draw. None takes fresh ones of the operating system.
    """
    rate = min(1.0, expected / count)
    stream = bytes(keystream(new_key() if key is None else key, 8 * count))
    coins = np.frombuffer(stream, "<u8") >> np.uint64(64 - COIN_BITS)
    return np.flatnonzero(coins < np.uint64(int(rate * 2**COIN_BITS))).tolist()


def clipped_gradient_sum(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    batches: Iterable[PromptBatch],
    clipping_norm: float,
) -> ClippedSum:
    """Sum over prompts of the loss gradient clipped to ``clipping_norm`` in L2.

    Parameters
    ----------
    model:
        Holds the parameters in its linear layers.
    parameters:
        Trainable ones, in the order of the flat vector.
    batches:
        Every prompt in exactly one batch.
    clipping_norm:
        C > 0.

    Returns
    -------
    ClippedSum
        Adding or removing one prompt moves the vector by at most C (triangle inequality on one
        clipped term) and the norms by one. A prompt whose gradient is not finite contributes zero.
    """
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    lengths = [torch.zeros(0, dtype=torch.float64)]
    for batch in batches:
        prompts = batch.prompt_of_row.unique()
        gradients = per_prompt_gradients(model, parameters, batch, prompts)
        norms = gradients.norm(dim=1)
        factors = (clipping_norm / norms.clamp(min=1e-30)).clamp(max=1.0)
        finite = norms.isfinite()
        total += (gradients[finite] * factors[finite, None]).sum(0)
        lengths.append(norms[finite & (norms > 0)])
    return ClippedSum(total.numpy(), torch.cat(lengths).numpy())


def per_prompt_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], batch: PromptBatch, prompts: Tensor
) -> Tensor:
    """Gradient of the loss for each of the sorted ``prompts``, float64 on the CPU, shape (P, d).

    Raises
    ------
    PrivacyError
        If Opacus has no hook for these parameters and the batch holds several prompts.
    """
    if len(prompts) == 1:
        return _flat(torch.autograd.grad(batch.loss(), parameters), 1)
    if not hookable(model, parameters):
        raise PrivacyError(
            f"a batch of {len(prompts)} prompts for parameters outside linear layers",
            cure="put one prompt into each batch, or use LoRA",
        )
    with _grad_samples(model, parameters), warnings.catch_warnings():
        # In the first layer only the weight needs a gradient; Opacus' hook still gets what it uses.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        batch.loss().backward()
        rows = _flat([getattr(p, OPACUS_RESULT) for p in parameters], len(batch.prompt_of_row))
    index = torch.searchsorted(prompts, batch.prompt_of_row)
    return rows.new_zeros(len(prompts), rows.shape[1]).index_add_(0, index, rows)


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
