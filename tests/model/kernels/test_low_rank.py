import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear

from fedgrpo.model.kernels.low_rank import FusedLoraLinear, fuse
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings
from tests.models import stirred, tiny_base

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [3, 9, 4, 4, 8, 2, 1]])


def adapter(kind: str = "lora", dtype: torch.dtype = torch.float32) -> Adapter:
    base = tiny_base()
    base.model.to(dtype)
    return stirred(Adapter(base, AdapterSettings.model_validate({"kind": kind})), 0.2)


def as_peft_made_it(model: Adapter) -> Adapter:
    for layer in model.model.modules():
        if isinstance(layer, FusedLoraLinear):
            layer.__class__ = LoraLinear
    return model


def logits_and_gradients(model: Adapter) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logits = model.causal(IDS).logits
    loss = (logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)).mean()
    return logits, list(torch.autograd.grad(loss, list(model.trainable.values())))


@pytest.mark.parametrize("kind", ["lora", "ffa_lora"])
def test_logits_and_gradients_equal_pefts_own(kind: str) -> None:
    ours, theirs = adapter(kind), as_peft_made_it(adapter(kind))
    for model in (ours, theirs):
        model.model.double()
    assert any(isinstance(layer, FusedLoraLinear) for layer in ours.model.modules())
    logits, gradients = logits_and_gradients(ours)
    expected_logits, expected = logits_and_gradients(theirs)
    assert torch.allclose(logits, expected_logits, atol=1e-10)
    for gradient, reference in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, reference, rtol=1e-8, atol=1e-12)


def test_in_bfloat16_both_are_as_near_to_the_truth() -> None:
    """Rounding differs; neither may be worse than the other by much."""
    truth, _ = logits_and_gradients(adapter())
    ours, gradients = logits_and_gradients(adapter(dtype=torch.bfloat16))
    theirs, _ = logits_and_gradients(as_peft_made_it(adapter(dtype=torch.bfloat16)))
    assert (ours - truth).norm() < 1.3 * (theirs - truth).norm()
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_who_listens_to_the_adapters_layers_gets_pefts_forward_pass() -> None:
    model = adapter()
    layer = next(m for m in model.model.modules() if isinstance(m, FusedLoraLinear))
    heard: list[tuple[int, ...]] = []
    a = layer.lora_A["default"]
    handle = a.register_forward_hook(lambda _, __, out: heard.append(tuple(out.shape)))
    expected = model.causal(IDS).logits
    assert len(heard) == 1
    handle.remove()
    assert torch.allclose(model.causal(IDS).logits, expected, atol=1e-4)
    assert len(heard) == 1


def test_a_layer_with_dropout_stays_as_peft_made_it() -> None:
    model = as_peft_made_it(adapter())
    layers = [m for m in model.model.modules() if type(m) is LoraLinear]
    layers[0].lora_dropout["default"] = torch.nn.Dropout(0.5)
    fuse(model.model)
    assert type(layers[0]) is LoraLinear
    assert all(type(layer) is FusedLoraLinear for layer in layers[1:])
