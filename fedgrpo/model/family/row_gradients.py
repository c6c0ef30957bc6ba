"""The gradient of each row: what prompt-level privacy clips.

A row is one prompt with all its completions. Fused LoRA layers give one gradient a row themselves,
and Opacus does for other linear layers. A unit's rows are summed before they are clipped
(:mod:`fedgrpo.privacy.grid`). What makes the bound hold lies with the caller: rows that cannot
reach each other (:mod:`fedgrpo.grpo.isolated`), advantages within the group only, constant
divisors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.model.family.precision import loss_scale
from fedgrpo.model.kernels.low_rank import ROW_GRADIENTS, gradients_by_row, is_fused


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
    # Every prompt's by the same factor, whoever is beside it.
    scale = loss_scale(model.dtype) if isinstance(model, PreTrainedModel) else 1.0
    return _scaled_gradients(model, parameters, lambda: loss() * scale, rows) / scale


def _scaled_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], rows: int
) -> Tensor:
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
