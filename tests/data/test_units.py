"""Rows that people mean by one are one, and nothing about a unit depends on the others."""

import datetime
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.data import PromptRow
from fedgrpo.data.units import Unit, check_unit_column, chosen_rows, unit_words, units_of
from fedgrpo.ground.errors import DataError

KEY = b"k" * 32
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(0, 3), st.floats(0, 3), st.text(max_size=2)
)
ROWS = st.lists(
    st.builds(
        lambda text, person, answer: PromptRow(text, {"person": person, "answer": answer}),
        st.sampled_from(["a", "b", "c"]),
        VALUES,
        st.lists(st.integers(0, 2), max_size=2),
    ),
    max_size=20,
)


def row(text: str, **columns: Any) -> PromptRow:
    return PromptRow(text, columns)


def sizes(rows: list[PromptRow], column: str = "") -> list[int]:
    return sorted(len(unit.rows) for unit in units_of(rows, column))


def test_copies_of_a_text_are_one_unit_whatever_their_other_columns() -> None:
    rows = [row("a", answer=1), row("b", answer=1), row("a", answer=2), row("a", answer=1)]
    assert sizes(rows) == [1, 3]


def test_chats_are_compared_by_their_messages() -> None:
    one = PromptRow(({"role": "user", "content": "a"},), {})
    same = PromptRow(({"content": "a", "role": "user"},), {})
    assert sizes([one, same, PromptRow(({"role": "system", "content": "a"},), {})]) == [1, 2]


def test_prompts_that_a_template_renders_alike_are_one_unit() -> None:
    rows = [row("a "), row(" a"), row("b")]
    rendered = units_of(rows, render=lambda prompt: str(prompt).strip())
    assert sorted(len(unit.rows) for unit in rendered) == [1, 2]


def test_a_column_alone_makes_units_where_it_is_named() -> None:
    rows = [row("a", person="x"), row("a", person="y"), row("b", person="x")]
    assert sizes(rows, "person") == [1, 2]
    assert sizes(rows) == [1, 2]
    by_person = {unit.rows for unit in units_of(rows, "person")}
    assert (1,) in by_person, "the same text of another person stays apart"


def test_a_persons_value_may_be_written_as_a_number_or_as_text() -> None:
    assert sizes([row("a", p=7), row("b", p="7"), row("c", p=7.0), row("d", p=7.5)], "p") == [1, 3]


def test_rows_without_a_value_are_one_unit_and_never_an_error() -> None:
    rows = [row("a"), row("b", p=None), row("c", p=float("nan")), row("d", p=" "), row("e", p="x")]
    assert sizes(rows, "p") == [1, 4]


def test_any_type_of_a_data_file_can_name_a_unit() -> None:
    values: list[Any] = [datetime.date(2020, 1, 2), b"\xff", [1, {"a": 2}], {"a": 1, 2: None}, True]
    rows = [row("a", p=value) for value in values for _ in range(2)]
    assert sizes(rows, "p") == [2] * len(values)


@given(ROWS, st.sampled_from(["", "person"]), st.randoms(use_true_random=False))
def test_units_hold_every_row_once_and_do_not_depend_on_the_files_order(
    rows: list[PromptRow], column: str, rng: random.Random
) -> None:
    units = units_of(rows, column)
    assert sorted(i for unit in units for i in unit.rows) == list(range(len(rows)))
    order = rng.sample(range(len(rows)), len(rows))
    again = units_of([rows[i] for i in order], column)
    for one, other in zip(units, again, strict=True):
        assert one.name == other.name
        assert [rows[i] for i in one.rows] == [rows[order[i]] for i in other.rows]


@given(ROWS, st.sampled_from(["", "person"]))
def test_a_unit_is_the_same_with_and_without_the_others(rows: list[PromptRow], column: str) -> None:
    for unit in units_of(rows, column):
        own = [rows[i] for i in unit.rows]
        (alone,) = units_of(own, column)
        assert alone.name == unit.name
        assert [own[i] for i in alone.rows] == own


def test_a_name_is_a_hash_and_texts_are_no_values() -> None:
    (by_text,), (by_value,) = units_of([row("a")]), units_of([row("b", p="a")], "p")
    assert by_text.name != by_value.name
    assert len(by_text.name) == 64


@given(st.integers(1, 9), st.integers(1, 9), st.binary(min_size=32, max_size=32))
def test_at_most_so_many_rows_take_part_and_the_key_alone_chooses(
    count: int, limit: int, key: bytes
) -> None:
    unit = Unit("n", tuple(range(10, 10 + count)))
    chosen = chosen_rows(unit, limit, key)
    assert len(set(chosen)) == len(chosen) == min(count, limit)
    assert [i for i in unit.rows if i in chosen] == list(chosen)
    assert chosen == chosen_rows(unit, limit, key)


def test_each_row_of_a_unit_is_chosen_as_often_as_any_other() -> None:
    unit = Unit("n", (0, 1, 2, 3))
    keys = (number.to_bytes(32, "big") for number in range(2000))
    drawn = Counter(i for key in keys for i in chosen_rows(unit, 1, key))
    # Standard deviation 19.
    assert all(abs(count - 500) < 90 for count in drawn.values())


def test_missing_values_are_told_to_the_sites_people_without_quoting_a_row() -> None:
    rows = [row("secret", p=1), row("secret"), row("secret", p=None)]
    with pytest.raises(DataError, match=r"2 of 3 rows .* 'p'.*row 2") as caught:
        check_unit_column(rows, "p", "f.jsonl")
    assert "secret" not in str(caught.value)
    check_unit_column(rows, "", "f.jsonl")
    check_unit_column(rows[:1], "p", "f.jsonl")


def test_the_sites_log_counts_rows_and_units() -> None:
    assert unit_words(units_of([row("a"), row("a"), row("b")]), "") == (
        "3 rows are 2 units (rows with the same text are one); the largest has 2 rows"
    )
    assert "'p'" in unit_words(units_of([row("a", p=1)], "p"), "p")
