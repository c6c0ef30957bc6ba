"""What is kept of a distribution is what transformers keeps, and both sides mean the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fedgrpo.grpo.rollout.choice.drawing import choose, uniforms
from fedgrpo.grpo.rollout.choice.warping import (
    NOTHING,
    PLAIN,
    History,
    Warped,
    Warping,
    left_filled_ids,
    marked,
)
from fedgrpo.grpo.rollout.scoring import token_logps, token_scores
from fedgrpo.model.family.passes import Head

V = 40


def logits(seed: int, rows: int = 16, spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def theirs(warping: Warping, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """In the order of ``generate``."""
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(warping.repetition_penalty)])
    if warping.top_k:
        steps.append(TopKLogitsWarper(warping.top_k))
    steps += [TopPLogitsWarper(warping.top_p), MinPLogitsWarper(warping.min_p)]
    found: torch.Tensor = steps(ids, scores.clone())
    return found


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    top_k=st.integers(0, 2 * V),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
    penalty=st.floats(0.5, 2.0),
)
def test_tokens_left_out_are_those_of_transformers(
    seed: int, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    ids = torch.randint(0, V, (16, 7), generator=torch.Generator().manual_seed(seed))
    given_logits = logits(seed)
    seen = marked(ids, V)
    for warping in (
        Warping(top_k=top_k),
        Warping(top_p=top_p),
        Warping(min_p=min_p),
        Warping(top_k, top_p, min_p),
    ):
        ours, expected = warping.applied(given_logits, None), theirs(warping, ids, given_logits)
        assert torch.equal(ours, expected)
        assert ours.isfinite().any(1).all()
    penalised = Warping(repetition_penalty=penalty)
    assert torch.allclose(
        penalised.applied(given_logits, seen), theirs(penalised, ids, given_logits), rtol=1e-6
    )


@pytest.mark.parametrize("warping", [Warping(top_k=3), Warping(top_p=0.5), Warping(min_p=0.2)])
def test_a_row_is_the_same_to_the_bit_beside_rows_of_nothing_and_in_any_order(
    warping: Warping,
) -> None:
    some = logits(1)
    alone = torch.cat([warping.applied(row[None], None) for row in some])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([some[order], some.new_full((5, V), torch.nan)])
    assert torch.equal(warping.applied(mixed, None)[:16], alone[order])


def test_of_equal_logits_at_the_edge_all_are_kept() -> None:
    equal = torch.zeros(2, V)
    for warping in (Warping(top_k=3), Warping(top_p=0.3), Warping(min_p=1.0)):
        assert warping.applied(equal, None).isfinite().all()


def test_a_plain_choice_is_the_same_to_the_bit_as_without_knobs() -> None:
    some, uniform = logits(2), uniforms((16, 1), torch.Generator().manual_seed(3))
    plain = (some / 0.7).log_softmax(-1)
    token, logp = choose(some, 0.7, uniform, PLAIN, None)
    assert torch.equal(logp, plain.gather(1, token))
    neutral = choose(some, 0.7, uniform, Warping(0, 1.0, 0.0, 1.0), torch.ones(16, V).bool())
    assert torch.equal(neutral[0], token)
    assert torch.equal(neutral[1], logp)


def test_what_stands_before_a_token_is_its_prompt_and_the_tokens_before_it() -> None:
    before = left_filled_ids([(5, 6), (7, 8, 9)])
    ids = torch.cat([before, torch.tensor([[1, 2], [3, 4]])], 1)
    history = History(ids, torch.tensor([0, 0, 1, 1]), 3 + torch.tensor([0, 1, 0, 1]))
    seen = history.seen(slice(0, 4), 10)
    assert [row.nonzero()[:, 0].tolist() for row in seen] == [
        [5, 6],
        [1, 5, 6],
        [7, 8, 9],
        [3, 7, 8, 9],
    ]
    assert before[0].tolist() == [NOTHING, 5, 6]


@pytest.mark.parametrize(
    "warping",
    [Warping(top_k=4), Warping(top_p=0.6), Warping(min_p=0.3), Warping(5, 0.9, 0.05, 1.3)],
)
def test_scores_and_gradients_are_those_of_autograd_with_the_token_kept_in(
    warping: Warping,
) -> None:
    generator = torch.Generator().manual_seed(4)
    layer = nn.Linear(8, V, bias=False).requires_grad_(False)
    hidden = torch.randn(6, 8, generator=generator)
    targets = torch.randint(0, V, (6,), generator=generator)
    ids = torch.randint(0, V, (6, 3), generator=generator)
    history = History(ids, torch.arange(6), torch.full((6,), 3))
    warped, head = Warped.of(warping, history), Head(layer)
    assert warped is not None

    def direct(states: torch.Tensor) -> torch.Tensor:
        scores = layer(states) / 0.8
        seen = marked(ids, V)
        moved = torch.where(
            scores < 0, scores * warping.repetition_penalty, scores / warping.repetition_penalty
        )
        scores = torch.where(seen, moved, scores)
        removed = warping.removed(scores.detach()).scatter(1, targets[:, None], value=False)
        logps: torch.Tensor = scores.masked_fill(removed, -torch.inf).log_softmax(1)
        return logps

    ours, other = (hidden.clone().requires_grad_() for _ in range(2))
    logps = token_logps(head, ours, targets, 0.8, warped=warped)
    expected = direct(other)
    chosen = expected.gather(1, targets[:, None])[:, 0]
    assert logps.isfinite().all()
    assert torch.allclose(logps, chosen, atol=1e-5)
    weights = torch.linspace(-1, 1, 6)
    (logps * weights).sum().backward()
    (chosen * weights).sum().backward()
    assert ours.grad is not None
    assert other.grad is not None
    assert torch.allclose(ours.grad, other.grad, atol=1e-5)
    again = hidden.clone().requires_grad_()
    scored, entropy = token_scores(head, again, targets, 0.8, warped=warped)
    assert torch.allclose(scored, chosen, atol=1e-5)
    direct_entropy = torch.special.entr(expected.exp()).sum(1)
    assert torch.allclose(entropy, direct_entropy, atol=1e-5)
    entropy.sum().backward()
    assert again.grad is not None
    assert again.grad.isfinite().all()
