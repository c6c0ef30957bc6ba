"""A row that would take a judge long costs itself alone, and what a judge may take is sized."""

import pytest

from fedgrpo.data.prompts import PromptRow, collate_columns
from fedgrpo.ground.errors import RewardError
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.judges.limits import FACT_BYTES, MOST_FACTS, question_tokens
from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture, isolated_mixture
from fedgrpo.settings import AdapterSettings, RewardSettings
from tests.models import tiny_base

MOST = question_tokens(16, 8)


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return Adapter(tiny_base(), AdapterSettings())


def mixture(adapter: Adapter, *names: str, most: int | None = MOST) -> IsolatedMixture:
    made = isolated_mixture(RewardSettings(functions=names), most_tokens=most)
    made.bind(adapter)
    return made


def judged(reward: IsolatedMixture, **columns: object) -> None:
    row = PromptRow("add 1+1=", columns)
    reward(["add 1+1="] * 2, ["2", "3"], collate_columns([row, row]))


GROUNDED = "judged_grounding"


def test_facts_within_the_limits_are_judged(adapter: Adapter) -> None:
    judged(mixture(adapter, GROUNDED), facts=["é" * (FACT_BYTES // 2)] * MOST_FACTS)


@pytest.mark.parametrize(
    "facts",
    [["it is 2"] * (MOST_FACTS + 1), ["é" * (FACT_BYTES // 2) + "a"], ["it is 2"] * 5000],
    ids=["number", "bytes", "many"],
)
def test_a_row_with_too_many_or_too_long_facts_is_not_judged(
    adapter: Adapter, facts: list[str]
) -> None:
    with pytest.raises(RewardError) as caught:
        judged(mixture(adapter, GROUNDED), facts=facts)
    assert "it is 2" not in str(caught.value)


@pytest.mark.parametrize("name", [GROUNDED, "reasoning_quality", "self_certainty"])
def test_a_question_of_too_many_tokens_is_not_asked(adapter: Adapter, name: str) -> None:
    reward = mixture(adapter, name, most=10)
    row = PromptRow("add 1+1=", {"facts": ["it is 2"]})
    columns = {**collate_columns([row] * 2), "completion_ids": [[5, 6, 7], [5] * 3]}
    with pytest.raises(RewardError, match="10 are allowed"):
        reward(["add 1+1="] * 2, ["2", "3"], columns)


def test_what_a_judge_may_take_is_measured(adapter: Adapter) -> None:
    asked = mixture(adapter, GROUNDED).model_seconds(4, MOST)
    assert 0 < asked < mixture(adapter, GROUNDED).model_seconds(400, MOST)
    assert mixture(adapter, "self_certainty").model_seconds(4, MOST) > 0
    assert mixture(adapter, "exact_match").model_seconds(4, MOST) == 0
