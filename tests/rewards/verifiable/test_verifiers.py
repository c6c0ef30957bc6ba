from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import completion_text, exact_match, last_number, numeric_match


def _chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@given(st.text())
def test_text_and_chat_completions_have_the_same_text(text: str) -> None:
    assert completion_text(text) == completion_text(_chat(text)) == text


def test_the_last_of_several_messages_is_the_answer() -> None:
    assert completion_text([*_chat("thinking"), *_chat("answer")]) == "answer"


@pytest.mark.parametrize(
    "wrong", [None, 3, [], ["secret"], [{"role": "assistant"}], [{"content": ["secret"]}]]
)
def test_a_completion_without_text_is_refused_without_showing_it(wrong: Any) -> None:
    with pytest.raises(RewardError, match="no text") as caught:
        completion_text(wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("form", [str, _chat])
def test_exact_match_ignores_only_surrounding_space(form: Any) -> None:
    given = [form(" 42\n"), form("4 2"), form("42."), form("7"), form("x")]
    answers = ["42", "42", "42", 7, None]
    assert exact_match(["p"] * 5, given, answer=answers, task=["a"] * 5) == [1, 0, 0, 1, None]


def test_exact_match_reads_answers_as_tables_keep_them() -> None:
    """A column of whole numbers with a gap in it comes out of a table as 12.0 and NaN."""
    given = ["12", "12.0", "12.5", "12", "-3", "12", "inf"]
    answers = [12.0, 12.0, 12.5, math.nan, -3.0, 12.5, math.inf]
    assert exact_match(["p"] * 7, given, answer=answers) == [1, 1, 1, None, 1, 0, 1]


@pytest.mark.parametrize("form", [str, _chat])
@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        ("so it is 42.", 42, 1),
        ("12 + 30 = 42", "42", 1),
        ("42, or rather 43", 42, 0),
        ("about 1,234,567 people", "1234567", 1),
        ("it is -3", -3, 1),
        ("5-3", 3, 1),
        ("x = \u22122.5", -2.5, 1),
        (".5", "0.5", 1),
        ("6.02e-3", 0.00602, 1),
        ("0.3333333", 1 / 3, 1),
        ("0.3333", 1 / 3, 0),
        ("50%", 50.0, 1),
        ("we get 18", "long reasoning 7 #### 18", 1),
        ("nothing", 1, 0),
        ("", 1, 0),
        ("9" * 400, 1, 0),
        ("1", "none", None),
        ("1", None, None),
    ],
)
def test_numeric_match_compares_last_numbers(
    form: Any, completion: str, answer: Any, reward: float | None
) -> None:
    assert numeric_match(["p"], [form(completion)], answer=[answer]) == [reward]


@pytest.mark.slow
@given(st.integers(-(10**15), 10**15), st.text(st.characters(categories=["Ll"])))
def test_any_integer_after_words_is_found_with_and_without_grouping(
    number: int, words: str
) -> None:
    assert last_number(f"{words} {number}") == number
    assert last_number(f"{words} {number:,}.") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_as_python_writes_it_is_found(number: float) -> None:
    assert last_number(f"= {number!r}") == number


@given(st.text())
def test_any_text_can_be_judged(text: str) -> None:
    assert numeric_match(["p"], [text], answer=[7])[0] in (0.0, 1.0)
