import pytest
import torch
from scipy.stats import chi2

from fedgrpo.grpo.rollout import decoding, memory
from fedgrpo.grpo.rollout.choice.drawing import draw
from fedgrpo.grpo.rollout.sampling import SamplingPlan, sample
from tests.models import random_llama

PROMPTS = [[5, 6, 7], [9, 4, 4, 8, 2, 11], [3], [12, 13, 14, 15]]


def plan(**changes: object) -> SamplingPlan:
    defaults = {
        "group_size": 6,
        "max_tokens": 12,
        "temperature": 1.0,
        "eos_ids": (1, 7),
        "pad_id": 0,
    }
    return SamplingPlan(**{**defaults, **changes})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recomputed(prompt: tuple[int, ...], tokens: list[int], temperature: float) -> torch.Tensor:
    """Log-probabilities from one plain forward pass over one unpadded row."""
    logits = random_llama()(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    logps = (logits / temperature).log_softmax(-1)
    return logps.gather(1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_logps_equal_a_plain_forward_pass(temperature: float) -> None:
    rollout = sample(random_llama(), PROMPTS, plan(temperature=temperature), generator())
    for row, length in enumerate(rollout.lengths().tolist()):
        prompt = rollout.prompts[row // rollout.group_size]
        expected = recomputed(prompt, rollout.tokens[row, :length].tolist(), temperature)
        assert torch.allclose(rollout.logps[row, :length], expected, atol=1e-5)


def test_greedy_equals_hugging_face_generate() -> None:
    rollout = sample(
        random_llama(), PROMPTS, plan(group_size=1, temperature=0.0, eos_ids=(1,)), generator()
    )
    for prompt, tokens, mask in zip(PROMPTS, rollout.tokens, rollout.mask, strict=True):
        ids = torch.tensor([prompt])
        expected = random_llama().generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )[0, len(prompt) :]
        assert tokens[mask].tolist() == expected.tolist()


def test_every_end_token_ends_a_completion_and_nothing_follows_it() -> None:
    rollout = sample(random_llama(), PROMPTS * 8, plan(max_tokens=40), generator())
    ends = torch.isin(rollout.tokens, torch.tensor([1, 7]))
    assert {1, 7} <= set(rollout.tokens[ends].tolist())
    for tokens, mask, ended in zip(rollout.tokens, rollout.mask, rollout.ended, strict=True):
        length = int(mask.sum())
        assert bool(torch.isin(tokens[length - 1], torch.tensor([1, 7]))) == bool(ended)
        assert (tokens[length:] == 0).all()
        assert ended or length == 40


def test_dropping_finished_rows_changes_no_greedy_completion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rollouts = []
    for share in (0.0, 2.0):
        monkeypatch.setattr(decoding, "COMPACT_AT", share)
        rollouts.append(
            sample(random_llama(), PROMPTS * 4, plan(group_size=2, temperature=0.0), generator())
        )
    assert torch.equal(rollouts[0].tokens, rollouts[1].tokens)
    assert torch.allclose(rollouts[0].logps, rollouts[1].logps, atol=1e-5)


def test_prompt_order_and_batch_size_change_no_greedy_completion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = sample(random_llama(), PROMPTS, plan(group_size=2, temperature=0.0), generator())
    monkeypatch.setattr(memory, "ROWS_PER_BATCH", 2)
    backwards = sample(
        random_llama(), PROMPTS[::-1], plan(group_size=2, temperature=0.0), generator()
    )
    assert torch.equal(whole.tokens.reshape(4, 2, -1), backwards.tokens.reshape(4, 2, -1).flip(0))


def test_token_frequencies_are_the_models_probabilities() -> None:
    rollout = sample(random_llama(), [[5, 6, 7]], plan(group_size=20000, max_tokens=1), generator())
    observed = torch.bincount(rollout.tokens[:, 0], minlength=48) / 20000
    expected = random_llama()(torch.tensor([[5, 6, 7]])).logits[0, -1].softmax(-1)
    assert (observed - expected).abs().max() < 5 * (expected.max() / 20000).sqrt()


def test_same_seed_same_completions() -> None:
    first, second, other = (
        sample(random_llama(), PROMPTS, plan(), generator(seed)).tokens for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("columns", [3, 256, 700])
def test_tokens_are_drawn_in_proportion_to_their_probability(columns: int) -> None:
    """Pearson's statistic over the columns, against its 99.99 % quantile."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.rand(columns, generator=generator) ** 3
    weights[::3] = 0.0
    weights[1] = 0.5 * weights.sum()
    draws = 40_000
    tokens = draw(weights.expand(draws, columns), generator)[:, 0]
    counts = torch.bincount(tokens, minlength=columns).double()
    assert not counts[weights == 0].any()
    expected = draws * (weights / weights.sum()).double()
    often = expected > 5
    statistic = float(((counts - expected)[often] ** 2 / expected[often]).sum())
    assert statistic < chi2.ppf(0.9999, int(often.sum()) - 1)


def test_the_only_possible_token_is_drawn_wherever_it_stands() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(600, 600).fill_diagonal_(1e-30)
    assert torch.equal(draw(weights, generator)[:, 0], torch.arange(600))
