from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import format_match, load_reward, think_answer_format


def test_the_pattern_must_match_the_whole_completion() -> None:
    reward = format_match(r"\d+ (?:apples|pears)")
    given_texts = ["3 apples", " 12 pears\n", "I have 3 apples", "3 apples and more", ""]
    assert reward(completions=given_texts) == [1, 1, 0, 0, 0]


def test_chat_completions_are_read_too() -> None:
    assert format_match("a.b")(completions=[[{"role": "assistant", "content": "a\nb"}]]) == [1.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>2+2\nis 4</think> <answer>4</answer>", 1),
        ("<think></think><answer></answer>", 1),
        ("<answer>4</answer>", 0),
        ("<think>a</think><answer>4</answer> done", 0),
        ("<think>a</think><think>b</think><answer>4</answer>", 0),
        ("<think>a</think><answer>4</answer><answer>5</answer>", 0),
    ],
)
def test_think_answer_format_wants_one_block_of_each(text: str, reward: float) -> None:
    assert think_answer_format(completions=[text]) == [reward]
    assert load_reward("think_answer_format") is think_answer_format


@given(st.text())
def test_any_literal_text_matches_itself(text: str) -> None:
    assert format_match(re.escape(text.strip()))(completions=[text]) == [1.0]


def test_a_pattern_that_does_not_compile_is_refused_at_once() -> None:
    with pytest.raises(RewardError, match="no regular expression"):
        format_match("(")
