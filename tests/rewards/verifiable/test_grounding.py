from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import grounding

FACTS = ["The tower is 324 metres tall.", "It was built in 1889 by Eiffel."]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("The tower is 324 metres tall. Eiffel built it in 1889.", 1.0),
        # One claim of one supported, one fact of two told: 2 * 1 * 1/2 / (3/2).
        ("The tower is 324 metres tall!", 2 / 3),
        # A wrong number alone makes a claim unsupported, and its fact untold.
        ("The tower is 325 metres tall. Eiffel built it in 1889.", 1 / 2),
        # Claims: supported, supported, invented: precision 2/3, recall 1.
        ("324 metres tall tower. Built 1889 by Eiffel. Visitors love pasta.", 4 / 5),
        ("I like trains.", 0.0),
        ("...", 0.0),
        ("", 0.0),
    ],
)
def test_claims_must_be_supported_and_facts_told(text: str, reward: float) -> None:
    assert grounding(["p"], [text], facts=[FACTS]) == [pytest.approx(reward)]


def test_chat_completions_and_rows_without_facts() -> None:
    chat = [[{"role": "assistant", "content": "Eiffel built it in 1889."}]] * 3
    rewards = grounding(["p"] * 3, chat, facts=[("Built in 1889 by Eiffel",), None, []])
    assert rewards == [1.0, None, None]


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3))
def test_any_text_gets_a_share(text: str, facts: list[str]) -> None:
    (reward,) = grounding(["p"], [text], facts=[facts])
    assert reward is not None
    assert 0 <= reward <= 1


@given(st.lists(st.text("bcdfg", min_size=2, max_size=6), min_size=1, max_size=5))
def test_repeating_the_facts_is_fully_grounded(facts: list[str]) -> None:
    assert grounding(["p"], [". ".join(facts)], facts=[facts]) == [1.0]


@pytest.mark.parametrize("facts", ["secret", ["secret", 3], {"secret": 1}])
def test_facts_of_another_form_are_refused_without_showing_them(facts: Any) -> None:
    with pytest.raises(RewardError, match="facts") as caught:
        grounding(["secret"], ["secret"], facts=[facts])
    assert "secret" not in str(caught.value)
