import pytest
import torch
from torch.func import grad

from fedgrpo.errors import SettingsError
from fedgrpo.grpo import BatchTotals, compute_loss
from fedgrpo.grpo.losses import k3

NAMES = ["grpo", "dr_grpo", "dapo"]


def batch(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(6, 5, generator=generator, dtype=torch.float64) * 3
    logps = old + torch.randn(6, 5, generator=generator, dtype=torch.float64) * 0.3
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([5, 1, 3, 2, 5, 4])
    return logps, old, advantages, torch.arange(5) < lengths[:, None]


def by_hand(name: str, low: float = 0.2, high: float = 0.28) -> float:
    """The papers' formulas with loops."""
    logps, old, advantages, mask = batch()
    sums, lengths = [], []
    for i in range(6):
        total = 0.0
        for t in range(5):
            if mask[i, t]:
                ratio = float((logps[i, t] - old[i, t]).exp())
                clipped = min(max(ratio, 1 - low), 1 + high)
                total -= min(ratio * float(advantages[i]), clipped * float(advantages[i]))
        sums.append(total)
        lengths.append(int(mask[i].sum()))
    if name == "grpo":
        return sum(s / n for s, n in zip(sums, lengths, strict=True)) / 6
    return sum(sums) / (6 * 5 if name == "dr_grpo" else sum(lengths))


@pytest.mark.parametrize("name", NAMES)
def test_loss_equals_the_papers_formula(name: str) -> None:
    assert float(compute_loss(name, *batch()).loss) == pytest.approx(by_hand(name), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_splitting_a_batch_changes_nothing(name: str, cut: int) -> None:
    tensors = batch()
    totals = BatchTotals(sequences=6, tokens=int(tensors[3].sum()), max_length=5)
    whole = compute_loss(name, *tensors, totals=totals).loss
    parts = [
        compute_loss(name, *(t[part] for t in tensors), totals=totals).loss
        for part in (slice(0, cut), slice(cut, None))
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), abs=1e-12)


def test_masked_tokens_have_no_gradient() -> None:
    logps, old, advantages, mask = batch()
    gradient = grad(lambda x: compute_loss("dapo", x, old, advantages, mask).loss)(logps)
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).any()


def test_on_policy_gradient_is_reinforce() -> None:
    _, old, advantages, mask = batch()
    ours = grad(lambda x: compute_loss("dr_grpo", x, old, advantages, mask).loss)(old.clone())
    plain = -(advantages[:, None] * mask) / 30
    assert torch.allclose(ours, plain)


def test_kl_penalty_has_the_gradient_of_the_kl_divergence() -> None:
    """Expected over tokens drawn from the policy, by enumerating a vocabulary of 7."""
    generator = torch.Generator().manual_seed(1)
    start, reference = (torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(2))
    ref_logps = reference.log_softmax(0)

    def exact(logits: torch.Tensor) -> torch.Tensor:
        logps = logits.log_softmax(0)
        return (logps.exp() * (logps - ref_logps)).sum()

    def estimated(logits: torch.Tensor) -> torch.Tensor:
        logps, old = logits.log_softmax(0), start.log_softmax(0)
        total = torch.zeros((), dtype=torch.float64)
        for token in range(7):
            row = [t[token].reshape(1, 1) for t in (logps, old)]
            result = compute_loss(
                "grpo",
                *row,
                torch.zeros(1, dtype=torch.float64),
                torch.ones(1, 1, dtype=torch.bool),
                ref_logps=ref_logps[token].reshape(1, 1),
                kl_weight=1.0,
            )
            total = total + old[token].exp() * result.loss
        return total

    assert torch.allclose(grad(estimated)(start), grad(exact)(start), atol=1e-10)


def test_k3_is_never_negative_and_zero_where_both_agree() -> None:
    logps, old, _, _ = batch()
    assert (k3(logps, old) >= 0).all()
    assert (k3(old, old) == 0).all()


def test_clip_metrics_count_the_tokens_whose_gradient_is_stopped() -> None:
    old = torch.zeros(2, 2)
    logps = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    advantages, mask = torch.tensor([1.0, -1.0]), torch.ones(2, 2, dtype=torch.bool)
    metrics = compute_loss("dapo", logps, old, advantages, mask).metrics
    assert metrics == {"clip_low": 0.25, "clip_high": 0.25}


def test_overflowing_ratios_stay_finite() -> None:
    logps, old = torch.full((1, 2), 900.0), torch.zeros(1, 2)
    result = compute_loss("grpo", logps, old, -torch.ones(1), torch.ones(1, 2, dtype=torch.bool))
    assert result.loss.isfinite()


def test_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="dr_grpo"):
        compute_loss("ppo2", *batch())
