from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import RewardError
from fedgrpo.grpo import GRPOTrainer
from fedgrpo.rewards import (
    JudgedGrounding,
    Principle,
    ReasoningQuality,
    RewardMixture,
    SelfCertainty,
    TokenJudge,
    constitution,
    load_reward,
)
from fedgrpo.rewards.judges.templates import render
from fedgrpo.settings import GRPOSettings
from tests.models import tiny_base
from tests.rewards.bag_of_tokens import bag_of_tokens

# No template has a z: each one in a text triples the odds of yes.
JUDGE = TokenJudge(bag_of_tokens({("y", "z"): math.log(3), ("5", "z"): math.log(6)}))


def _chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("form", [str, _chat])
def test_a_principle_rewards_the_probability_of_yes(form: Any) -> None:
    reward = Principle("be kind", JUDGE)
    assert reward([form("p")] * 3, [form("a"), form("z"), form("zz")]) == pytest.approx(
        [0.5, 0.75, 0.9]
    )


def test_the_judge_reads_prompt_principle_and_completion() -> None:
    assert Principle("zz", JUDGE)(["z"], ["z"]) == pytest.approx([81 / 82])


def test_each_principle_of_a_constitution_is_a_reward_of_its_own() -> None:
    mixture = RewardMixture(constitution({"kind": "be kind", "zeal": "z"}, 2.0, JUDGE))
    result = mixture(["p"], ["z"], {})
    assert {name: value.tolist() for name, value in result.per_function.items()} == {
        "kind": pytest.approx([0.75]),
        "zeal": pytest.approx([0.9]),
    }
    assert mixture.weights.tolist() == [1.0, 1.0]
    assert result.objectives()[0].tolist() == pytest.approx([0.75, 0.9])


def test_reasoning_is_scored_between_zero_and_one() -> None:
    # Even odds give 3 of 5; with one z the odds are 1:1:1:1:6, so (10 + 30) / 10 = 4.
    assert ReasoningQuality(JUDGE)(["p", "p"], ["a", "z"]) == pytest.approx([0.5, 0.75])


def test_judged_grounding_is_the_mean_over_the_rows_own_facts() -> None:
    rewards = JudgedGrounding(JUDGE)(
        ["p"] * 4, ["a", "z", "a", "a"], facts=[["a", "z"], ["b"], None, []]
    )
    assert rewards[:2] == pytest.approx([(0.5 + 0.75) / 2, 0.75])
    assert rewards[2:] == [None, None]


def test_self_certainty_reads_the_tokens_of_the_completion() -> None:
    reward = SelfCertainty(JUDGE)
    (z,) = JUDGE.base.tokenizer.convert_tokens_to_ids(["z"])
    sure, unsure, empty = reward(["z", "a", "a"], completion_ids=[[z], [z], []])
    assert sure > 0
    assert unsure == pytest.approx(0.0, abs=1e-6)
    assert empty is None


def test_a_text_that_looks_like_a_template_stays_as_it_is() -> None:
    filled = render("{prompt}|{completion}", prompt="{completion}", completion="{x}")
    assert filled == "{completion}|{x}"


@pytest.mark.slow
@given(st.text(), st.text())
def test_any_text_can_be_judged(prompt: str, completion: str) -> None:
    (value,) = Principle("be kind", JUDGE)([prompt], [completion])
    assert 0 < value <= 1


@pytest.mark.parametrize(
    ("template", "problem"), [("{completion} {answer}", "answer"), ("{prompt}", "lacks")]
)
def test_a_template_with_a_wrong_field_is_refused_at_once(template: str, problem: str) -> None:
    with pytest.raises(RewardError, match=problem):
        Principle("be kind", template=template)


@pytest.mark.parametrize("facts", ["secret", [1, "secret"], 3])
def test_facts_that_are_no_texts_are_refused_without_showing_them(facts: Any) -> None:
    with pytest.raises(RewardError, match="no list of texts") as caught:
        JudgedGrounding(JUDGE)(["secret"], ["secret"], facts=[facts])
    assert "secret" not in str(caught.value)


NAMES = ("reasoning_quality", "self_certainty", "judged_grounding", "repetition")


@pytest.mark.slow
def test_a_trainer_lends_its_frozen_base_to_judged_rewards_found_by_name() -> None:
    prompts = [PromptRow(f"sort {n}=", {"facts": ["1 is less than 2"]}) for n in range(10, 18)]
    mixture = RewardMixture([(name, load_reward(name), 1.0) for name in NAMES])
    options = GRPOSettings(prompts_per_step=4, group_size=4, max_completion_length=8)
    trainer = GRPOTrainer(tiny_base(), mixture, prompts, settings=options)
    frozen = {name for name, p in trainer.adapter.model.named_parameters() if not p.requires_grad}
    metrics = list(trainer.train(2))
    assert metrics[-1].applied
    assert set(metrics[-1].rewards) == set(NAMES) == set(metrics[-1].reward_spreads)
    assert metrics[-1].reward == pytest.approx(sum(metrics[-1].rewards.values()))
    after = {name for name, p in trainer.adapter.model.named_parameters() if not p.requires_grad}
    assert after == frozen


def test_two_mixtures_never_share_a_judge() -> None:
    first, second = (load_reward("reasoning_quality") for _ in range(2))
    assert isinstance(first, ReasoningQuality)
    assert isinstance(second, ReasoningQuality)
    assert first.judge is not second.judge
