import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from peft import PeftModel

from fedgrpo.ground.errors import AdapterError
from fedgrpo.model.adapter import LARGEST, AdapterState, check_values
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings
from tests.models import stirred, tiny_base

KINDS = ["ffa_lora", "lora", "tiny_lora"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


def adapter(kind: str, seed: int = 0, **changes: object) -> Adapter:
    return Adapter(tiny_base(), AdapterSettings.model_validate({"kind": kind, **changes}), seed)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_state_moves_an_adapter_to_another_process_exactly(kind: str) -> None:
    source, target = stirred(adapter(kind)), adapter(kind, seed=9)
    target.load(source.state())
    assert torch.equal(logits(source.causal), logits(target.causal))
    assert np.array_equal(source.vector(), target.vector())
    assert source.state().basis_hash == target.state().basis_hash


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_decode_as_the_adapter_does_and_leave_no_trace(kind: str) -> None:
    model = stirred(adapter(kind), 0.3)
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    outside = logits(model.causal)
    with model.merged():
        inside = logits(model.causal)
        plain = logits(tiny_base().model)
    assert torch.allclose(inside, outside, atol=1e-4)
    assert not torch.allclose(inside, plain, atol=1e-2)
    for name, parameter in model.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    thawed = {name for name, p in model.model.named_parameters() if p.requires_grad}
    assert thawed == set(model.trainable)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_is_the_base_alone_and_an_error_switches_on_again(kind: str) -> None:
    model = stirred(adapter(kind), 0.3)
    outside = logits(model.causal)
    with model.off():
        assert torch.equal(logits(model.causal), logits(tiny_base().model))
    with pytest.raises(AdapterError, match="shape"), model.off():
        model.state().moved(model.vector()[:-1])
    assert torch.equal(logits(model.causal), outside)
    thawed = {name for name, p in model.model.named_parameters() if p.requires_grad}
    assert thawed == set(model.trainable)


def test_merged_weights_cannot_be_switched_off() -> None:
    model = stirred(adapter("lora"), 0.3)
    with model.merged():
        merged = logits(model.causal)
        with pytest.raises(AdapterError, match="merged"), model.off():
            pass
        assert torch.equal(logits(model.causal), merged)


def test_ffa_lora_trains_b_alone() -> None:
    model = adapter("ffa_lora")
    assert all("lora_B" in name for name in model.trainable)
    assert all("lora_A" in name for name in model.frozen)
    assert len(model.frozen) == len(model.trainable)


def test_mean_of_ffa_updates_is_the_update_of_the_mean() -> None:
    """What makes averaging sound: logits at a layer are linear in B where A is frozen."""
    model = adapter("ffa_lora", target_modules=("down_proj",), rank=4)
    first, second = (stirred(model, 0.1, seed).vector() for seed in (1, 2))
    deltas = []
    layer = next(m for m in model.causal.modules() if hasattr(m, "lora_A"))
    for vector in (first, second, (first + second) / 2):
        model.set_vector(vector)
        deltas.append(layer.get_delta_weight("default").detach().clone())
    assert torch.allclose((deltas[0] + deltas[1]) / 2, deltas[2], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_saved_adapter_loads_with_peft_alone(kind: str, tmp_path: Path) -> None:
    model = stirred(adapter(kind), 0.2)
    expected = logits(model.causal)
    model.save(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_base().model, str(tmp_path)).eval()
    # PEFT multiplies in another order: 1.1e-5 was measured on one CPU.
    assert torch.allclose(logits(loaded), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("ffa_lora", "tiny_lora"), ("lora", "lora")])
def test_two_adapters_on_one_base_do_not_touch_each_other(first: str, second: str) -> None:
    base = tiny_base()
    plain = logits(base.model)
    ours = stirred(Adapter(base, AdapterSettings.model_validate({"kind": first})), 0.3)
    before = logits(ours.causal)
    theirs = stirred(Adapter(base, AdapterSettings.model_validate({"kind": second})), 0.2, 5)
    assert torch.equal(logits(ours.causal), before)
    with theirs.merged():
        assert torch.equal(logits(ours.causal), before)
        assert torch.equal(logits(base.model), plain)
    assert not torch.equal(logits(theirs.causal), before)
    shared = base.model.get_input_embeddings().weight.data_ptr()
    assert ours.causal.get_input_embeddings().weight.data_ptr() == shared


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [{"rank": 2}, {"alpha": 8.0}, {"kind": "lora"}, {"target_modules": ("q_proj",)}],
)
def test_adapter_of_another_layout_is_refused(other: dict[str, object]) -> None:
    foreign = adapter(**{"kind": "ffa_lora", **other})  # type: ignore[arg-type]
    with pytest.raises(AdapterError, match="another layout"):
        adapter("ffa_lora").load(foreign.state())


@pytest.mark.slow
def test_missing_or_foreign_basis_is_refused() -> None:
    model = adapter("ffa_lora")
    state = model.state()
    with pytest.raises(AdapterError, match="frozen tensors"):
        model.load(AdapterState(state.vector, {}, state.layout))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["transposed", "flat", "float64", "NaN", "beyond"])
def test_a_frozen_tensor_of_another_shape_type_or_size_is_refused_and_nothing_moves(
    kind: str, change: str
) -> None:
    model = stirred(adapter(kind))
    state, before = model.state(), model.vector()
    if kind == "lora":  # It has no frozen tensor; its vector is held to the same.
        bad = {"float64": before.astype(np.float64), "flat": before[None]}.get(
            change, np.where(np.arange(before.size) == 3, np.nan, before).astype(np.float32)
        )
        with pytest.raises(AdapterError):
            model.load(AdapterState(bad, state.basis, state.layout))
    else:
        name = next(name for name, array in state.basis.items() if array.ndim == 2)
        good = state.basis[name]
        bad = {
            "transposed": np.ascontiguousarray(good.T)
            if good.shape[0] != good.shape[1]
            else good[:1],
            "flat": good.reshape(-1),
            "float64": good.astype(np.float64),
            "NaN": np.full_like(good, np.nan),
            "beyond": np.full_like(good, 1.1e6),
        }[change]
        with pytest.raises(AdapterError, match="frozen tensor"):
            model.load(AdapterState(before + 1, {**state.basis, name: bad}, state.layout))
    assert np.array_equal(model.vector(), before)
    assert model.state().basis_hash == state.basis_hash


@pytest.mark.slow
@given(
    arrays(np.float32, st.integers(1, 9)),
    arrays(np.float32, array_shapes(max_dims=3, max_side=3)),
)
def test_values_are_taken_exactly_where_all_are_finite_and_within_bounds(
    vector: np.ndarray, frozen: np.ndarray
) -> None:
    sound = all(bool((np.abs(a) <= LARGEST).all()) for a in (vector, frozen))
    with contextlib.nullcontext() if sound else pytest.raises(AdapterError, match="values that"):
        check_values(vector, {"A": frozen})


def test_an_error_about_values_never_repeats_the_senders_names() -> None:
    basis = {"SECRET": np.zeros(3, np.float64)}
    with pytest.raises(AdapterError) as caught:
        check_values(np.zeros(3, np.float32), basis)
    assert "SECRET" not in str(caught.value)


@pytest.mark.slow
def test_basis_hash_sees_every_value_and_name() -> None:
    state = adapter("tiny_lora").state()
    name = next(iter(state.basis))
    changed = {**state.basis, name: state.basis[name] + 1e-6}
    renamed = {("x" if key == name else key): value for key, value in state.basis.items()}
    hashes = {
        AdapterState(state.vector, b, state.layout).basis_hash
        for b in (state.basis, changed, renamed)
    }
    assert len(hashes) == 3


def test_visit_to_other_values_ends_where_it_began() -> None:
    model = stirred(adapter("ffa_lora"))
    here = model.vector()
    with pytest.raises(AdapterError, match="shape"), model.at(np.zeros_like(here)):
        model.state().moved(here[:-1])
    assert np.array_equal(model.vector(), here)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [("q_prj", "v_proj"), ("no_such_layer",), ("proj",), ()])
def test_a_target_that_is_no_layer_is_refused_with_those_that_are(
    kind: str, names: tuple[str, ...]
) -> None:
    """One misspelt name beside a right one, too: it would be left out without a word."""
    strange = names[0] if names else "nothing"
    with pytest.raises(AdapterError, match=f"target_modules names {strange},") as caught:
        adapter(kind, target_modules=names)
    known = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert caught.value.cure == f"choose from all-linear, {known}"


def test_a_target_that_can_carry_no_adapter_is_refused() -> None:
    with pytest.raises(AdapterError, match="names input_layernorm, which cannot carry"):
        adapter("lora", target_modules=("input_layernorm",))
