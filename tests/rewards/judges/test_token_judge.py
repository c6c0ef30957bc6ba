from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.judges.answer_tokens import answer_tokens
from fedgrpo.rewards.judges.token_judge import Standing, TokenJudge
from fedgrpo.settings import AdapterSettings
from tests.models import stirred, tiny_base
from tests.rewards.bag_of_tokens import bag_of_tokens

ODDS = bag_of_tokens({("y", "z"): math.log(3)})
QUESTIONS = ["1+2=", "sort 312=", "a", "reverse abc=", "99"]


def test_each_z_triples_the_odds_of_yes() -> None:
    answers = TokenJudge(ODDS).yes(["?", "z", "zz?", "az"])
    np.testing.assert_allclose(answers, [1 / 2, 3 / 4, 9 / 10, 3 / 4], rtol=1e-6)


def test_score_is_the_expectation_over_the_score_tokens_alone() -> None:
    # With one z the odds of 1 to 5 are 1 : 1 : 1 : 2 : 5; the likely letter q counts for nothing.
    judge = TokenJudge(
        bag_of_tokens({("4", "z"): math.log(2), ("5", "z"): math.log(5), ("q", "z"): 9.0})
    )
    expected = (1 + 2 + 3 + 2 * 4 + 5 * 5) / 10
    np.testing.assert_allclose(judge.score(["?", "z"], 5), [3.0, expected], rtol=1e-6)


def test_a_chat_template_is_used_where_there_is_one() -> None:
    template = "z{% for m in messages %}{{ m['content'] }}{% endfor %}z"
    judge = TokenJudge(bag_of_tokens({("y", "z"): math.log(3)}, template))
    np.testing.assert_allclose(judge.yes(["?"]), [9 / 10], rtol=1e-6)


@settings(max_examples=25)
@given(
    st.lists(st.text("abz019 +=", min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(1, 60),
)
def test_an_answer_depends_on_its_own_question_alone(texts: list[str], budget: int) -> None:
    alone = [float(TokenJudge(ODDS).yes([text])[0]) for text in texts]
    np.testing.assert_allclose(
        TokenJudge(ODDS, tokens_per_batch=budget).yes(texts), alone, rtol=1e-6
    )


def test_probabilities_equal_a_plain_forward_of_the_whole_model() -> None:
    base = tiny_base()
    found = TokenJudge(base, tokens_per_batch=20).probabilities(QUESTIONS, ("yes", "no"))
    ids = base.tokenizer.convert_tokens_to_ids(["y", "n"])
    for text, row in zip(QUESTIONS, found, strict=True):
        with torch.no_grad():
            logits = base.model(**base.tokenizer(text, return_tensors="pt")).logits[0, -1]
        np.testing.assert_allclose(row, logits[ids].double().softmax(0), atol=1e-5)


def test_nothing_is_asked_and_nothing_answered() -> None:
    assert TokenJudge(ODDS).yes([]).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["base", "round", "policy"])
@pytest.mark.parametrize("kind", ["ffa_lora", "lora", "tiny_lora"])
def test_each_standing_judges_with_its_own_weights_and_leaves_no_trace(
    at: Standing, kind: str
) -> None:
    adapter = stirred(Adapter(tiny_base(), AdapterSettings.model_validate({"kind": kind})), 0.3)
    judge = TokenJudge(at=at)
    judge.bind(adapter)
    at_round = TokenJudge(adapter, at="policy").yes(QUESTIONS)
    stirred(adapter, 0.3, seed=8)
    before = {name: (p.clone(), p.requires_grad) for name, p in adapter.model.named_parameters()}
    expected = {
        "base": TokenJudge(tiny_base()).yes(QUESTIONS),
        "round": at_round,
        "policy": TokenJudge(adapter, at="policy").yes(QUESTIONS),
    }
    np.testing.assert_allclose(judge.yes(QUESTIONS), expected[at], atol=1e-5)
    others = [values for name, values in expected.items() if name != at]
    assert all(np.abs(values - expected[at]).max() > 1e-3 for values in others)
    for name, parameter in adapter.model.named_parameters():
        assert torch.equal(parameter, before[name][0]), name
        assert parameter.requires_grad == before[name][1], name
    after = TokenJudge(adapter, at="policy").yes(QUESTIONS)
    np.testing.assert_array_equal(after, expected["policy"])


def test_a_judge_of_its_own_is_not_replaced_by_the_trainers_model() -> None:
    judge = TokenJudge(ODDS)
    judge.bind(Adapter(tiny_base(), AdapterSettings()))
    np.testing.assert_allclose(judge.yes(["z"]), [3 / 4], rtol=1e-6)


def test_a_base_that_carries_an_adapter_is_refused() -> None:
    carrying = Adapter(tiny_base(), AdapterSettings()).base
    with pytest.raises(RewardError, match="carries an adapter"):
        TokenJudge(carrying)


def test_a_judge_without_a_model_says_so() -> None:
    with pytest.raises(RewardError, match="no model"):
        TokenJudge().yes(["secret"])


@pytest.mark.parametrize("top", [1, 10])
def test_a_scale_must_be_one_digit(top: int) -> None:
    with pytest.raises(RewardError, match="choose 2 to 9"):
        TokenJudge(ODDS).score(["?"], top)


def test_answers_keep_the_tokens_that_no_other_answer_begins_with() -> None:
    yes, no = ODDS.tokenizer.convert_tokens_to_ids(["y", "n"])
    # " yes" and " no" both begin with the space, "Yes" and "No" are unknown.
    assert answer_tokens(ODDS.tokenizer, ("yes", "no")) == [[yes], [no]]
    with pytest.raises(RewardError, match="no token that begins '1'"):
        answer_tokens(ODDS.tokenizer, ("1", "10"))


def test_certainty_is_the_mean_divergence_from_uniform() -> None:
    base = bag_of_tokens({("y", "z"): 2.0})
    z, a = base.tokenizer.convert_tokens_to_ids(["z", "a"])
    size = len(base.tokenizer)
    # A uniform prediction has none; after k z's one of V logits is 2k, so
    # logsumexp - mean - log V = log(V - 1 + e^2k) - 2k / V - log V.
    after = [math.log(size - 1 + math.exp(2 * k)) - 2 * k / size - math.log(size) for k in range(3)]
    found = TokenJudge(base).certainty([[a], [z], [z], [a]], [[a, a], [a], [z, a], []])
    assert found[3] is None
    np.testing.assert_allclose(
        np.array(found[:3], float), [0, after[1], (after[1] + after[2]) / 2], atol=1e-6
    )


def test_certainty_equals_the_divergence_by_its_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "fedgrpo.rewards.judges.forward.LOGITS_BUDGET", 110
    )  # two positions at a time
    base = tiny_base()
    prompt, completion = base.tokenizer(["sort 312=", "12345"])["input_ids"]
    with torch.no_grad():
        logits = base.model(torch.tensor([[*prompt, *completion]])).logits[0]
    logp = logits[len(prompt) - 1 : -1].double().log_softmax(1)
    uniform = torch.full_like(logp, 1 / logp.shape[1])
    by_definition = (uniform * (uniform.log() - logp)).sum(1).mean()
    found = TokenJudge(base).certainty([prompt, prompt[:3]], [completion, completion])
    assert found[0] == pytest.approx(float(by_definition), abs=1e-5)
