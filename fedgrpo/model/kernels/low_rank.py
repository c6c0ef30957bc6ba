"""A linear layer with LoRA as one node of the graph.

PEFT's own forward pass casts the input to the adapter's precision, multiplies twice, scales and
adds, and keeps what each of these made for the backward pass. Here the low-rank product is
accumulated into the frozen layer's output, and input and bottleneck alone are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import linear

from fedgrpo.model.kernels.half_product import backward_product

ROW_GRADIENTS = "grad_sample"
"""Attribute of a factor on which one gradient a row is left: Opacus' name for it."""

ADAPTER = "default"
"""PEFT's name of a model's only adapter."""


class LowRankLinear(torch.autograd.Function):
    """``x W^T + bias + scale (x A^T) B^T`` in the precision of x; W and bias are frozen."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        by_row: bool,
    ) -> Tensor:
        """Shapes: x (..., i), weight (o, i), bias (o,), a (r, i), b (o, r); returns (..., o)."""
        flat = x.reshape(-1, x.shape[-1])
        low, scaled = a.to(x.dtype), (b * scale).to(x.dtype).T.contiguous()
        bottleneck = linear(flat, low)
        y = linear(flat, weight, bias).addmm_(bottleneck, scaled)
        ctx.save_for_backward(flat, bottleneck, weight, low, scaled)
        ctx.scale, ctx.shape, ctx.precision = scale, x.shape, a.dtype  # type: ignore[attr-defined]
        ctx.factors = (a, b) if by_row else None  # type: ignore[attr-defined]
        # As matmul does: a model may write into what it is given, which autograd refuses of views.
        shaped: Tensor = torch.ops.aten._unsafe_view.default(y, [*x.shape[:-1], y.shape[-1]])
        return shaped

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B; with ``by_row``, those of A and B stay on them, one a row."""
        flat, bottleneck, weight, low, scaled = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1])
        need_x, _, _, need_a, need_b, _, _ = ctx.needs_input_grad
        # A row-major (r, o) factor: four times as fast on a CPU as its transpose.
        inner = linear(g, scaled) if need_x or need_a else None
        grad_x = grad_a = grad_b = None
        if need_x and inner is not None:
            grad_x = backward_product(g, weight).addmm_(inner, low).view(ctx.shape)
        if ctx.factors:
            a, b = ctx.factors
            if need_a:
                setattr(a, ROW_GRADIENTS, _by_row(inner, flat, ctx.shape, ctx.precision))
            if need_b:
                by_row = _by_row(g, bottleneck, ctx.shape, ctx.precision)
                setattr(b, ROW_GRADIENTS, by_row * ctx.scale)
            return grad_x, None, None, None, None, None, None
        if need_a:
            grad_a = (inner.T @ flat).to(ctx.precision)  # type: ignore[union-attr]
        if need_b:
            grad_b = (bottleneck.T @ g).T.to(ctx.precision) * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None, None


def _by_row(
    left: Tensor | None, right: Tensor, shape: torch.Size, precision: torch.dtype
) -> Tensor:
    """Products of each row, (R * S, m) and (R * S, n) to (R, m, n)."""
    assert left is not None
    rows = shape[0]
    return (left.view(rows, -1, left.shape[1]).mT @ right.view(rows, -1, right.shape[1])).to(
        precision
    )


class FusedLoraLinear(LoraLinear):
    """PEFT's LoRA layer with :class:`LowRankLinear` as its forward pass.

    PEFT's own is taken wherever it does more: several adapters, and hooks on the layers inside
    (per-prompt gradients are taken by such).
    """

    by_row = False
    """Whether gradients are left on the factors, one a row, and not summed."""

    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A, shape (r, i), and B, shape (o, r), float32."""
        a, b = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        assert isinstance(a, nn.Linear)
        assert isinstance(b, nn.Linear)
        return cast(nn.Parameter, a.weight), cast(nn.Parameter, b.weight)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply base and adapter to x, (..., i); returns (..., o)."""
        base = self.base_layer
        if self.merged_adapters and not self.disable_adapters:
            merged: Tensor = base(x)
            return merged
        a, b = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        listened = a._forward_hooks or b._forward_hooks or base._forward_hooks
        if args or kwargs or listened or self.disable_adapters or len(self.lora_A) > 1:
            theirs: Tensor = super().forward(x, *args, **kwargs)
            return theirs
        ours: Tensor = LowRankLinear.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, *self.factors(), self.scaling[ADAPTER], self.by_row
        )
        return ours


@contextmanager
def gradients_by_row(model: nn.Module) -> Iterator[None]:
    """Let a backward pass leave one gradient a row on the factors of fused layers."""
    layers = [module for module in model.modules() if isinstance(module, FusedLoraLinear)]
    for layer in layers:
        layer.by_row = True
    try:
        yield
    finally:
        for layer in layers:
            layer.by_row = False
            for factor in layer.factors():
                if hasattr(factor, ROW_GRADIENTS):
                    delattr(factor, ROW_GRADIENTS)


def is_fused(model: nn.Module, parameters: Sequence[nn.Parameter]) -> bool:
    """Whether all of these parameters are factors of fused layers."""
    factors = {
        id(factor)
        for module in model.modules()
        if isinstance(module, FusedLoraLinear)
        for factor in module.factors()
    }
    return all(id(parameter) in factors for parameter in parameters)


def fuse(model: nn.Module) -> None:
    """Give every plain LoRA layer on a plain linear layer the forward pass above.

    Everything else stays as PEFT made it: DoRA and other variants, dropout, biases in the adapter,
    quantised and transposed layers. Parameters and their names do not change.
    """
    for layer in model.modules():
        if (
            type(layer) is LoraLinear
            and type(layer.get_base_layer()) is nn.Linear
            and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
            and not layer.lora_bias[ADAPTER]
            and ADAPTER not in layer.lora_variant
        ):
            layer.__class__ = FusedLoraLinear
