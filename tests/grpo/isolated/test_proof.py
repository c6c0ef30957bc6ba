"""A node that finds that its shapes do not keep prompts apart goes one at a time, or refuses."""

import copy
from collections.abc import Callable

import pytest
import torch

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.isolated.engine import Engine
from fedgrpo.grpo.isolated.proof import prove_isolation
from fedgrpo.grpo.isolated.shapes import Layout
from tests.grpo.isolated.engines import engine


def fresh(gradients: Callable[..., torch.Tensor] | None = None) -> Engine:
    ours = engine()
    layout = Layout.of(ours.settings, 16)
    return Engine(ours.policy, ours.reward, (), layout, gradients or ours.gradients)


def test_shapes_in_which_prompts_are_strangers_are_kept() -> None:
    which = fresh()
    before = which.policy.adapter.vector()
    proof = prove_isolation(which)
    assert not proof.alone
    assert which.layout.slots > 1
    assert proof.sampling_s > 0
    assert proof.teaching_s > 0
    assert (which.policy.adapter.vector() == before).all()
    embedding = which.policy.adapter.causal.get_input_embeddings()
    assert not embedding._forward_hooks


def test_where_rows_reach_each_other_prompts_go_one_at_a_time() -> None:
    ours = engine().gradients

    def leaky(*arguments: object) -> torch.Tensor:
        rows = ours(*arguments)  # type: ignore[arg-type]
        # The last row's size reaches the others, be it in the last bit.
        return rows * (1 + 2.0**-50 * (len(rows) > 1) * rows[-1].nan_to_num().norm())

    which = fresh(leaky)
    proof = prove_isolation(which)
    assert proof.alone
    assert {which.layout.side(shape) for shape in which.layout.teaching_shapes()} == {1}


def test_a_model_that_varies_even_alone_is_refused_by_name() -> None:
    ours, calls = engine().gradients, []

    def restless(*arguments: object) -> torch.Tensor:
        calls.append(1)
        return ours(*arguments) * (1 + 1e-9 * len(calls))  # type: ignore[arg-type]

    with pytest.raises(ModelError, match="'llama' gives other bits"):
        prove_isolation(fresh(restless))


def test_a_model_that_takes_no_mask_of_ours_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    which = fresh()
    config = copy.copy(which.policy.adapter.causal.config)
    monkeypatch.setattr(config, "_attn_implementation", "eager", raising=False)
    monkeypatch.setattr(which.policy.adapter.causal, "config", config)
    with pytest.raises(ModelError, match="take no mask of ours"):
        prove_isolation(which)
