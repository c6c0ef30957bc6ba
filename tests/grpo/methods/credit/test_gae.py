"""GAE and the value loss against the papers' own loops, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.grpo.methods.credit.gae import (
    explained_variance,
    gae,
    outcome_rewards,
    value_loss,
    whiten,
)


def paper_gae(
    rewards: list[float], values: list[float], discount: float, trace: float
) -> list[float]:
    """Equation 16 of arXiv 1506.02438 as a sum over the tokens ahead, nothing recursive."""
    ahead = [*values, 0.0]
    deltas = [r + discount * ahead[t + 1] - ahead[t] for t, r in enumerate(rewards)]
    return [
        sum((discount * trace) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


def example(seed: int, rows: int = 4, width: int = 7) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((rows, width)) < 0.6)
    mask[:, 0] = True
    return (
        torch.from_numpy(rng.normal(size=(rows, width))),
        torch.from_numpy(rng.normal(size=(rows, width))),
        mask,
    )


@given(st.integers(0, 10**6), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_gae_is_the_papers_sum_over_the_tokens_that_count(
    seed: int, discount: float, trace: float
) -> None:
    rewards, values, mask = example(seed)
    advantages, returns = gae(rewards, values, mask, discount=discount, trace=trace)
    for row in range(len(mask)):
        counted = mask[row]
        expected = paper_gae(
            rewards[row][counted].tolist(), values[row][counted].tolist(), discount, trace
        )
        assert advantages[row][counted].tolist() == pytest.approx(expected, abs=1e-9)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()
    assert torch.allclose(returns[mask], (advantages + values)[mask])


def test_full_trace_gives_the_outcome_less_the_value_and_none_the_one_step_error() -> None:
    _, values, mask = example(1)
    mask[:] = True
    rewards = outcome_rewards(torch.tensor([1.0, 0.0, 2.0, -1.0]).double(), mask)
    full, returns = gae(rewards, values, mask, discount=1.0, trace=1.0)
    outcome = torch.tensor([1.0, 0.0, 2.0, -1.0]).double()[:, None]
    assert torch.allclose(full, outcome - values)
    assert torch.allclose(returns, outcome.expand_as(returns))
    short, _ = gae(rewards, values, mask, discount=1.0, trace=0.0)
    ahead = torch.cat([values[:, 1:], torch.zeros(4, 1)], 1)
    assert torch.allclose(short, rewards + ahead - values)


def test_outcome_sits_at_the_last_token_of_each_completion() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    rewards = outcome_rewards(torch.tensor([3.0, 5.0]), mask)
    assert rewards.tolist() == [[0, 3, 0], [5, 0, 0]]


def test_whitened_advantages_have_mean_zero_and_spread_one_over_the_tokens() -> None:
    values, _, mask = example(2)
    white = whiten(values, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-9)
    assert float(white[mask].std()) == pytest.approx(1)
    assert not white[~mask].any()
    flat = whiten(torch.full((2, 3), 0.7), torch.ones(2, 3, dtype=torch.bool))
    assert float(flat.abs().max()) < 1e-3


def test_value_loss_is_the_papers_maximum_of_two_squares() -> None:
    returns, old, mask = example(3)
    values = old + torch.linspace(-1, 1, values_count := old.numel()).reshape(old.shape)
    total = 0.0
    for v, o, r in zip(values[mask], old[mask], returns[mask], strict=True):
        kept = min(max(float(v), float(o) - 0.2), float(o) + 0.2)
        total += max((float(v) - float(r)) ** 2, (kept - float(r)) ** 2)
    loss = value_loss(values, old, returns, mask, clip=0.2)
    assert float(loss) == pytest.approx(0.5 * total / int(mask.sum()))
    assert values_count == mask.numel()


def test_value_that_left_its_band_gets_no_pull_further_out() -> None:
    values = torch.tensor([[1.0]], requires_grad=True)
    old, returns = torch.tensor([[0.0]]), torch.tensor([[5.0]])
    value_loss(values, old, returns, torch.ones(1, 1, dtype=torch.bool), clip=0.5).backward()
    assert values.grad is not None
    assert float(values.grad) == 0


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_the_mean() -> None:
    returns, _, mask = example(4)
    assert explained_variance(returns, returns, mask) == pytest.approx(1)
    constant = torch.full_like(returns, 3.0)
    assert explained_variance(constant, returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) < 0
    assert explained_variance(returns, constant, mask) == 0
