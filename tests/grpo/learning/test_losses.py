"""Every loss against the paper's formula in loops, and what all of them must keep."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad

from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo import LOSSES, BatchTotals, Surrogate, TokenBatch, compute_loss, register_loss
from fedgrpo.grpo.learning.losses import k3
from fedgrpo.grpo.learning.losses.aggregation import token_mean
from fedgrpo.grpo.rollout.packing import pack
from tests.models import graded, stirred, tiny_trainer

UNSPLIT = [name for name, method in LOSSES.items() if not method.batch_wide]
SEQUENCE_MEAN = {"grpo", "gspo", "gmpo", "sapo"}
CONSTANT = {"dr_grpo", "critique_grpo"}


def batch(seed: int = 0, spread: float = 0.3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(6, 5, generator=generator, dtype=torch.float64) * 3
    logps = old + torch.randn(6, 5, generator=generator, dtype=torch.float64) * spread
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([5, 1, 3, 2, 5, 4])
    return logps, old, advantages, torch.arange(5) < lengths[:, None]


def rows(spread: float) -> list[tuple[list[float], list[float], float]]:
    """Log-probabilities, log ratios and the advantage of each completion, as plain numbers."""
    logps, old, advantages, mask = batch(spread=spread)
    return [
        (logps[i][mask[i]].tolist(), (logps - old)[i][mask[i]].tolist(), float(advantages[i]))
        for i in range(6)
    ]


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def ppo(ratio: float, advantage: float, low: float, high: float) -> float:
    return -min(ratio * advantage, clip(ratio, 1 - low, 1 + high) * advantage)


def dual(ratio: float, advantage: float) -> float:
    inner = max(-ratio * advantage, -clip(ratio, 0.8, 1.2) * advantage)
    return min(inner, -3 * advantage) if advantage < 0 else inner


def soft(ratio: float, advantage: float) -> float:
    tau = 1.0 if advantage > 0 else 1.05
    return -4 / tau / (1 + math.exp(-tau * (ratio - 1))) * advantage


def geometric(log_ratios: list[float], advantage: float) -> float:
    sign = math.copysign(1, advantage)
    total = sum(sign * min(sign * d, clip(sign * d, -0.4, 0.4)) for d in log_ratios)
    return -advantage * math.exp(total / len(log_ratios))


def sequence(log_ratios: list[float], advantage: float) -> float:
    return ppo(math.exp(sum(log_ratios) / len(log_ratios)), advantage, 3e-4, 4e-4)


TOKEN_LOSS: dict[str, Callable[[float, float, float], float]] = {
    "reinforce": lambda logp, d, advantage: -advantage * logp,
    "critique_grpo": lambda logp, d, advantage: -advantage * math.exp(d),
    "cispo": lambda logp, d, advantage: -min(math.exp(d), 5.0) * advantage * logp,
    "sapo": lambda logp, d, advantage: soft(math.exp(d), advantage),
    "dual_clip": lambda logp, d, advantage: dual(math.exp(d), advantage),
    **dict.fromkeys(
        ["grpo", "dr_grpo", "dapo", "bnpo"], lambda logp, d, a: ppo(math.exp(d), a, 0.2, 0.28)
    ),
}
SEQUENCE_LOSS = {"gspo": sequence, "gmpo": geometric}


def by_hand(name: str, spread: float) -> float:
    """The papers' formulas with loops."""
    sums, lengths = [], []
    for logps, log_ratios, advantage in rows(spread):
        lengths.append(len(logps))
        if name in SEQUENCE_LOSS:
            sums.append(SEQUENCE_LOSS[name](log_ratios, advantage) * len(logps))
        else:
            pairs = zip(logps, log_ratios, strict=True)
            sums.append(sum(TOKEN_LOSS[name](logp, d, advantage) for logp, d in pairs))
    if name in SEQUENCE_MEAN:
        return sum(s / n for s, n in zip(sums, lengths, strict=True)) / 6
    return sum(sums) / (6 * 5 if name in CONSTANT else sum(lengths))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("spread", [0.01, 0.3, 2.0])
def test_loss_equals_the_papers_formula(name: str, spread: float) -> None:
    result = compute_loss(name, *batch(spread=spread))
    assert float(result.loss) == pytest.approx(by_hand(name, spread), abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cispo"])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_gradient_is_that_of_finite_differences(name: str, spread: float) -> None:
    """For all but CISPO, which holds its weights constant."""
    logps, old, advantages, mask = batch(spread=spread)
    exact = grad(lambda x: compute_loss(name, x, old, advantages, mask).loss)(logps)
    step = 1e-6
    for i, t in mask.nonzero().tolist():
        moved = torch.zeros_like(logps)
        moved[i, t] = step
        up, down = (
            compute_loss(name, logps + s * moved, old, advantages, mask).loss for s in (1, -1)
        )
        assert float(exact[i, t]) == pytest.approx(float(up - down) / 2 / step, abs=1e-7)


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    logps, old, advantages, mask = batch(spread=3.0)
    exact = grad(lambda x: compute_loss("cispo", x, old, advantages, mask).loss)(logps)
    weight = (logps - old).exp().clamp(max=5.0)
    assert (weight[mask] == 5.0).any()
    assert torch.allclose(exact, -weight * advantages[:, None] * mask / mask.sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", UNSPLIT)
@given(cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 3))
def test_splitting_a_batch_changes_nothing(name: str, cuts: set[int], seed: int) -> None:
    """KL penalty and entropy bonus included."""
    *tensors, mask = batch(seed)
    tensors += [mask, tensors[1] - 0.1, tensors[0].square()]
    totals = BatchTotals(sequences=6, tokens=int(mask.sum()), max_length=5)

    def loss(part: slice) -> float:
        logps, old, advantages, counts, reference, entropy = (t[part] for t in tensors)
        options = {"kl_weight": 0.3, "entropy_weight": 0.2, "totals": totals, "entropy": entropy}
        result = compute_loss(name, logps, old, advantages, counts, ref_logps=reference, **options)
        return float(result.loss)

    edges = [0, *sorted(cuts), 6]
    parts = sum(loss(slice(a, b)) for a, b in pairwise(edges))
    assert parts == pytest.approx(loss(slice(0, 6)), abs=1e-12)


def test_bnpo_depends_on_the_split_and_is_the_mean_of_even_micro_batches() -> None:
    tensors = batch()
    totals = BatchTotals(sequences=6, tokens=int(tensors[3].sum()), max_length=5)
    whole = float(compute_loss("bnpo", *tensors, totals=totals).loss)
    halves = [[t[part] for t in tensors] for part in (slice(0, 3), slice(3, 6))]
    split = sum(float(compute_loss("bnpo", *half, totals=totals).loss) for half in halves)
    alone = [float(compute_loss("bnpo", *half).loss) for half in halves]
    assert split == pytest.approx(sum(alone) / 2, abs=1e-12)
    assert split != pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_values_behind_the_end_do_not_matter(name: str) -> None:
    """Whatever a filler holds, infinities too, loss and gradient stay the same."""
    logps, old, advantages, mask = batch()

    def result(filler: float) -> tuple[Tensor, Tensor]:
        filled = [t.masked_fill(~mask, filler) for t in (logps, old, old, -logps)]
        leaf = filled[0].clone().requires_grad_(True)
        loss = compute_loss(
            name,
            leaf,
            filled[1],
            advantages,
            mask,
            ref_logps=filled[2],
            kl_weight=0.1,
            entropy=filled[3],
            entropy_weight=0.1,
        ).loss
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    (loss, gradient), (other, other_gradient) = result(0.0), result(-math.inf)
    assert loss.equal(other)
    assert gradient.equal(other_gradient)
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_padding_to_a_greater_width_changes_nothing(name: str) -> None:
    tensors = batch()
    wide = [torch.nn.functional.pad(t, (0, 3)) if t.ndim == 2 else t for t in tensors]
    narrow, padded = (compute_loss(name, *t, max_completion_length=5).loss for t in (tensors, wide))
    assert float(narrow) == pytest.approx(float(padded), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_packed_rows_have_the_loss_and_gradient_of_padded_ones(name: str) -> None:
    trainer = tiny_trainer(8, reward=graded)
    stirred(trainer.adapter, 0.02)
    experience = trainer.collect(range(4))
    stirred(trainer.adapter, 0.02, seed=4)
    trainer.updater.settings = trainer.settings.model_copy(update={"loss": name})
    totals = trainer.updater.totals(experience)
    parameters = list(trainer.adapter.trainable.values())
    keep = experience.useful(with_silent=False)
    results = []
    for row_tokens in (2048, 1):
        (packed,) = pack(
            experience.rollout, keep, tokens_per_batch=10**6, max_row_tokens=row_tokens
        )
        loss = trainer.updater.loss(experience, packed, totals).loss
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        results.append((loss.detach(), flat))
    (loss, gradient), (padded_loss, padded_gradient) = results
    assert torch.allclose(loss, padded_loss, atol=1e-5)
    assert torch.allclose(gradient, padded_gradient, atol=1e-3 * float(gradient.abs().max()))
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("shaping", [0.1, 0.5])
def test_refinements_are_shaped_by_their_own_likelihood(shaping: float) -> None:
    logps, old, advantages, mask = batch()
    refined = torch.tensor([True, False, False, True, True, False])
    options = {"refined": refined, "shaping": shaping}
    loss = compute_loss("critique_grpo", logps, old, advantages, mask, **options).loss
    expected = sum(
        -float(advantages[i])
        * (p / (p + shaping) if refined[i] else float((logps - old)[i, t].exp()))
        for i, t in mask.nonzero().tolist()
        for p in [float(logps[i, t].exp())]
    )
    assert float(loss) == pytest.approx(expected / 30)


def test_slope_of_a_refinement_equals_finite_differences_and_peaks_where_told() -> None:
    logps = torch.linspace(-6, 0, 61, dtype=torch.float64)[:, None]
    ones, mask = torch.ones(61, dtype=torch.float64), torch.ones(61, 1).bool()
    refined = {"refined": mask[:, 0]}
    stale = logps - 7.0

    def loss(x: Tensor) -> Tensor:
        return compute_loss("critique_grpo", x, stale, ones, mask, **refined).loss * 61

    slope = -grad(loss)(logps)
    step = 1e-6
    for i in range(61):
        moved = torch.zeros_like(logps)
        moved[i] = step
        rise = float(loss(logps - moved) - loss(logps + moved)) / 2 / step
        assert float(slope[i]) == pytest.approx(rise, abs=1e-7)
    assert float(logps[slope.argmax()].exp()) == pytest.approx(0.1, rel=0.06)


def test_masked_tokens_have_no_gradient() -> None:
    logps, old, advantages, mask = batch()
    gradient = grad(lambda x: compute_loss("dapo", x, old, advantages, mask).loss)(logps)
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_gradient_is_reinforce_by_each_divisor(name: str) -> None:
    """Where policy and sampler agree, the whole family is one method with three divisors."""
    _, old, advantages, mask = batch()
    ours = grad(lambda x: compute_loss(name, x, old, advantages, mask).loss)(old.clone())
    if name in SEQUENCE_MEAN:
        divisor = 6.0 * mask.sum(1, True)
    else:
        divisor = torch.tensor(30.0 if name in CONSTANT else float(mask.sum()))
    assert torch.allclose(ours, -(advantages[:, None] * mask) / divisor, atol=1e-12)


def enumerated_kl(kl: str, corrected: bool, age: float) -> tuple[Tensor, Tensor]:
    """Gradient of KL(policy || reference) over a vocabulary of 7, exact and as the sampler's mean
    of what the penalty gives for each token.
    """
    generator = torch.Generator().manual_seed(1)
    start, reference, shift = (
        torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    ref_logps = reference.log_softmax(0)
    old = (start + age * shift).log_softmax(0)

    def exact(logits: Tensor) -> Tensor:
        logps = logits.log_softmax(0)
        return (logps.exp() * (logps - ref_logps)).sum()

    def estimated(logits: Tensor) -> Tensor:
        logps = logits.log_softmax(0)
        total = torch.zeros((), dtype=torch.float64)
        for token in range(7):
            row = [t[token].reshape(1, 1) for t in (logps, old)]
            result = compute_loss(
                "grpo",
                *row,
                torch.zeros(1, dtype=torch.float64),
                torch.ones(1, 1, dtype=torch.bool),
                ref_logps=ref_logps[token].reshape(1, 1),
                kl=kl,
                kl_weight=1.0,
                kl_corrected=corrected,
            )
            total = total + old[token].exp() * result.loss
        return total

    return grad(estimated)(start), grad(exact)(start)


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("age", [0.0, 0.7])
def test_kl_penalty_has_the_gradient_of_the_kl_divergence(kl: str, age: float) -> None:
    """With the sampler behind the policy, too."""
    estimated, exact = enumerated_kl(kl, corrected=True, age=age)
    assert torch.allclose(estimated, exact, atol=1e-10)


def test_without_the_correction_k1_teaches_nothing_and_k3_something_else() -> None:
    assert enumerated_kl("k1", corrected=False, age=0.0)[0].abs().max() < 1e-10
    estimated, exact = enumerated_kl("k3", corrected=False, age=0.0)
    assert not torch.allclose(estimated, exact, atol=0.02)


@pytest.mark.parametrize("kl", ["k1", "k3"])
def test_kl_estimates_have_the_divergence_as_their_mean(kl: str) -> None:
    logps, reference = (torch.randn(7, dtype=torch.float64).log_softmax(0) for _ in range(2))
    ones, zeros = torch.ones(7, 1, dtype=torch.bool), torch.zeros(7, dtype=torch.float64)
    columns = [t[:, None] for t in (logps, reference)]
    values = [
        compute_loss(
            "dapo",
            columns[0][i : i + 1],
            columns[0][i : i + 1],
            zeros[:1],
            ones[:1],
            ref_logps=columns[1][i : i + 1],
            kl=kl,
            kl_weight=1.0,
        ).loss
        for i in range(7)
    ]
    expected = (logps.exp() * (logps - reference)).sum()
    assert torch.allclose((logps.exp() * torch.stack(values)).sum(), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_entropy_bonus_goes_by_the_methods_divisor_and_is_reported(name: str) -> None:
    logps, old, advantages, mask = batch()
    entropy = torch.ones_like(logps) * 2
    plain = compute_loss(name, logps, old, advantages, mask, entropy=entropy)
    bonus = compute_loss(
        name, logps, old, advantages, mask, entropy=entropy, entropy_weight=0.5
    ).loss
    counted = float(mask.sum()) / 30 if name in CONSTANT else 1.0
    assert float(plain.loss - bonus) == pytest.approx(counted)
    assert float(plain.metrics["entropy"]) == pytest.approx(2.0)


@given(st.floats(-30, 30), st.sampled_from([-1.5, 2.0]))
def test_dual_clip_bounds_the_loss_of_bad_tokens(log_ratio: float, advantage: float) -> None:
    logps = torch.full((1, 1), log_ratio)
    tensors = (logps, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1).bool())
    loss = float(compute_loss("dual_clip", *tensors).loss)
    assert loss <= max(0.0, -3 * advantage) + 1e-6
    plain = float(compute_loss("dapo", *tensors, clip_high=0.2).loss)
    assert loss == pytest.approx(min(plain, -3 * advantage) if advantage < 0 else plain)


def test_clip_ranges_and_constants_are_options() -> None:
    logps, old, advantages, mask = batch(spread=3.0)
    for name in ("gspo", "gmpo", "cispo", "dapo", "dual_clip"):
        wide = compute_loss(name, logps, old, advantages, mask, clip_low=0.99, clip_high=50.0)
        assert wide.loss != compute_loss(name, logps, old, advantages, mask).loss
    sharper = compute_loss("sapo", logps, old, advantages, mask, positive=3.0, negative=3.0)
    assert sharper.loss != compute_loss("sapo", logps, old, advantages, mask).loss
    # Methods without a clip do not look at its range, so that one call fits all.
    assert compute_loss("sapo", logps, old, advantages, mask, clip_low=0.1).loss.isfinite()


def test_a_new_loss_is_one_decorated_function() -> None:
    @register_loss("squared", aggregate=token_mean, batch_wide=False)
    def squared(tokens: TokenBatch, *, power: float = 2.0) -> Surrogate:
        nowhere = torch.zeros_like(tokens.mask)
        return Surrogate(tokens.log_ratio**power, nowhere, nowhere)

    try:
        logps, old, _, mask = batch()
        expected = ((logps - old)[mask] ** 2).mean()
        assert torch.allclose(compute_loss("squared", *batch()).loss, expected)
        assert compute_loss("squared", *batch(), power=4.0).loss < expected
    finally:
        del LOSSES._entries["squared"]


def test_k3_is_never_negative_and_zero_where_both_agree() -> None:
    logps, old, _, _ = batch()
    assert (k3(logps, old) >= 0).all()
    assert (k3(old, old) == 0).all()


def test_clip_metrics_count_the_tokens_whose_gradient_is_stopped() -> None:
    old = torch.zeros(2, 2)
    logps = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    advantages, mask = torch.tensor([1.0, -1.0]), torch.ones(2, 2, dtype=torch.bool)
    found = compute_loss("dapo", logps, old, advantages, mask).metrics
    metrics = {name: float(value) for name, value in found.items()}
    assert (metrics["clip_low"], metrics["clip_high"]) == (0.25, 0.25)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_overflowing_ratios_stay_finite(name: str, sign: int) -> None:
    logps, old = torch.full((1, 2), 900.0 * sign), torch.zeros(1, 2)
    ones = torch.ones(1, 2, dtype=torch.bool)
    options = {"ref_logps": -logps, "kl_weight": 1.0}
    assert compute_loss(name, logps, old, -torch.ones(1), ones, **options).loss.isfinite()


def test_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="dr_grpo"):
        compute_loss("ppo2", *batch())


def test_unknown_options_and_estimators_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no option ceiling.*\n.*clip_high"):
        compute_loss("dapo", *batch(), ceiling=2.0)
    with pytest.raises(SettingsError, match="'k4' is unknown"):
        compute_loss("dapo", *batch(), ref_logps=batch()[1], kl="k4", kl_weight=1.0)
    with pytest.raises(SettingsError, match="needs the entropy"):
        compute_loss("dapo", *batch(), entropy_weight=0.1)


def test_options_in_a_name_are_the_methods_own_and_go_before_a_clip_that_is_set() -> None:
    for named, name, options in (
        ("sapo(positive=2.0, negative=3)", "sapo", {"positive": 2.0, "negative": 3.0}),
        ("dual_clip(ceiling=0.5)", "dual_clip", {"ceiling": 0.5}),
        ("dapo(clip_high=0.01)", "dapo", {"clip_high": 0.01}),
    ):
        expected = compute_loss(name, *batch(), **options)
        assert compute_loss(named, *batch()).loss == expected.loss
        assert compute_loss(name, *batch()).loss != expected.loss
    named = compute_loss("dapo(clip_high=0.01)", *batch(), clip_high=0.5)
    assert named.loss == compute_loss("dapo", *batch(), clip_high=0.01).loss


@pytest.mark.parametrize(
    "name", ["sapo(positive=0)", "dual_clip(ceiling=-1)", "sapo(negative=1e8)"]
)
def test_options_that_would_overflow_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="should be"):
        compute_loss(name, *batch())
