from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.data import PromptRow, dirichlet_weights, hold_out, partition_rows
from fedgrpo.data.partition import rows_by_client
from fedgrpo.data.units import units_of
from fedgrpo.ground.errors import DataError, SettingsError

SEEDS = st.integers(0, 2**32)
CONCENTRATIONS = st.floats(1e-6, 1e6)


def _rows(values: list[str]) -> list[PromptRow]:
    return [PromptRow(f"prompt {i}", {"task": value}) for i, value in enumerate(values)]


@given(st.integers(1, 12), st.integers(1, 12), CONCENTRATIONS, SEEDS)
def test_weights_of_a_client_are_a_distribution(
    groups: int, clients: int, concentration: float, seed: int
) -> None:
    weights = dirichlet_weights(groups, clients, concentration, seed)
    assert weights.shape == (clients, groups)
    assert weights.dtype == np.float64
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_array_equal(weights, dirichlet_weights(groups, clients, concentration, seed))


@pytest.mark.parametrize("concentration", [0.1, 1.0, 10.0])
def test_weights_have_the_dirichlet_mean_and_variance(concentration: float) -> None:
    groups = 4
    weights = dirichlet_weights(groups, 20_000, concentration, seed=3)
    mean = 1 / groups
    variance = mean * (1 - mean) / (groups * concentration + 1)
    np.testing.assert_allclose(weights.mean(axis=0), mean, atol=0.01)
    np.testing.assert_allclose(weights.var(axis=0), variance, rtol=0.05)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=80),
    st.integers(1, 12),
    st.sampled_from(["", "task"]),
    CONCENTRATIONS,
    SEEDS,
)
def test_every_row_goes_to_exactly_one_client_and_sizes_differ_by_at_most_one(
    values: list[str], clients: int, by: str, concentration: float, seed: int
) -> None:
    rows = _rows(values)
    clients = min(clients, len(rows))
    parts = partition_rows(rows, clients, by=by, concentration=concentration, seed=seed)
    assert len(parts) == clients
    assert Counter(id(row) for part in parts for row in part) == Counter(map(id, rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=12, max_size=80),
    st.sampled_from(["", "person"]),
    st.sampled_from(["", "task"]),
    SEEDS,
)
def test_rows_of_one_unit_stay_with_one_client_and_clients_have_as_many_units(
    drawn: list[tuple[int, int]], unit: str, by: str, seed: int
) -> None:
    rows = [PromptRow(str(t), {"person": p, "task": t % 3}) for t, p in drawn]
    clients = min(3, len(units_of(rows, unit)))
    parts = partition_rows(rows, clients, by=by, concentration=0.5, seed=seed, unit=unit)
    assert Counter(id(row) for part in parts for row in part) == Counter(map(id, rows))
    names = [{one.name for one in units_of(part, unit)} for part in parts]
    assert sum(map(len, names)) == len(set().union(*names))
    assert max(map(len, names)) - min(map(len, names)) <= 1


def _spread(concentration: float) -> float:
    """Mean over clients of the largest share of one task."""
    rows = _rows(list("abcd") * 300)
    parts = partition_rows(rows, 6, by="task", concentration=concentration, seed=1)
    return float(
        np.mean([max(Counter(row.columns["task"] for row in p).values()) / len(p) for p in parts])
    )


def test_smaller_concentration_makes_clients_more_unequal() -> None:
    unequal, middle, equal = _spread(0.01), _spread(0.5), _spread(1000)
    assert unequal > 0.8
    assert unequal > middle > equal
    assert equal < 0.32


def test_an_even_split_is_shuffled() -> None:
    parts = partition_rows(_rows(["a"] * 200 + ["b"] * 200), 4, by="", concentration=1, seed=0)
    for part in parts:
        assert 30 < sum(row.columns["task"] == "a" for row in part) < 70


def test_a_split_is_reproducible_and_depends_on_the_seed() -> None:
    def split(seed: int) -> list[list[PromptRow]]:
        rows = _rows(list("abc") * 40)
        return partition_rows(rows, 5, by="task", concentration=0.5, seed=seed)

    assert split(7) == split(7)
    assert split(7) != split(8)


def test_a_client_without_rows_is_refused_with_the_number_needed() -> None:
    with pytest.raises(DataError, match=r"2 rows of 2 units .* 3 clients(.|\n)*at least 3 units"):
        partition_rows(_rows(["a", "b"]), 3, by="", concentration=1, seed=0)


def test_a_row_without_the_column_is_named_with_the_columns_there_are() -> None:
    rows = [PromptRow("secret", {"site": 1, "task": "a"}), PromptRow("secret", {"task": "b"})]
    with pytest.raises(DataError, match=r"row 2 .*no column 'site'(.|\n)*\['task'\]") as caught:
        partition_rows(rows, 1, by="site", concentration=1, seed=0)
    assert "secret" not in str(caught.value)


def test_a_column_of_lists_cannot_split() -> None:
    rows = [PromptRow("p", {"cases": ["secret"]})]
    with pytest.raises(DataError, match=r"row 1 .*list in column 'cases'") as caught:
        partition_rows(rows, 1, by="cases", concentration=1, seed=0)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan"), float("inf"), 1e-300])
def test_an_impossible_concentration_is_refused(concentration: float) -> None:
    with pytest.raises(SettingsError, match="heterogeneity"):
        dirichlet_weights(2, 2, concentration, seed=0)
    with pytest.raises(SettingsError, match="heterogeneity"):
        partition_rows(_rows(["a"]), 1, by="task", concentration=concentration, seed=0)


def test_no_clients_or_groups_are_refused() -> None:
    with pytest.raises(SettingsError, match="0 clients"):
        partition_rows(_rows(["a"]), 0, by="", concentration=1, seed=0)
    with pytest.raises(SettingsError, match="0 groups"):
        dirichlet_weights(0, 1, 1.0, seed=0)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.data(), SEEDS)
def test_no_client_has_an_evaluation_prompt(
    prompts: list[int], data: st.DataObject, seed: int
) -> None:
    rows = [PromptRow(str(prompt), {"answer": i}) for i, prompt in enumerate(prompts)]
    count = data.draw(st.integers(1, len(rows) - 1))
    if len(set(prompts)) == 1:
        with pytest.raises(DataError, match="repeat"):
            hold_out(rows, count, seed)
        return
    # A prompt of its own, so that something is kept whatever is held.
    rows += [PromptRow(f"other {i}", {}) for i in range(count + 1)]
    kept, held = hold_out(rows, count, seed)
    assert len(held) == count
    held_prompts = {row.prompt for row in held}
    assert not {row.prompt for row in kept} & held_prompts
    # Nothing else is lost.
    rest = [row for row in rows if row.prompt not in held_prompts]
    assert list(map(id, kept)) == list(map(id, rest))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=60), SEEDS)
def test_no_client_has_a_row_of_a_person_or_with_a_text_that_is_held_out(
    drawn: list[tuple[int, int]], seed: int
) -> None:
    rows = [
        PromptRow(str(text), {"person": person}) for text, person in [*drawn, (31, 10), (32, 11)]
    ]
    try:
        kept, held = hold_out(rows, 1, seed, "person")
    except DataError:
        return
    assert len(held) == 1
    assert kept == [
        row
        for row in rows
        if row.prompt != held[0].prompt and row.columns["person"] != held[0].columns["person"]
    ]


def test_rows_to_hold_out_come_from_few_persons() -> None:
    """Drawn one by one, 50 rows would leave hardly a person of 100 with ten rows each untouched."""
    rows = [PromptRow(f"prompt {i}", {"person": i % 100}) for i in range(1000)]
    kept, held = hold_out(rows, 50, 0, "person")
    assert (len(kept), len(held)) == (950, 50)


def test_chat_prompts_are_compared_by_their_messages() -> None:
    def chat(text: str) -> PromptRow:
        return PromptRow(({"content": text, "role": "user"},), {})

    rows = [chat("a"), PromptRow(({"role": "user", "content": "a"},), {}), chat("b"), chat("b")]
    kept, held = hold_out(rows, 1, seed=0)
    assert len(kept) == 2
    assert held[0].for_model() not in [row.for_model() for row in kept]


def test_holding_out_is_reproducible() -> None:
    rows = _rows(["a"] * 50)
    assert hold_out(rows, 10, seed=1) == hold_out(rows, 10, seed=1)
    assert hold_out(rows, 10, seed=1) != hold_out(rows, 10, seed=2)


@pytest.mark.parametrize("count", [-1, 0, 3, 4])
def test_holding_out_none_or_all_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} of 3 rows"):
        hold_out(_rows(["a"] * 3), count, seed=0)


def test_a_pool_of_one_repeated_prompt_is_refused() -> None:
    with pytest.raises(DataError, match="repeat the 1 held-out") as caught:
        hold_out([PromptRow("secret", {})] * 3, 1, seed=0)
    assert "secret" not in str(caught.value)


def test_a_column_can_say_whose_rows_are_whose() -> None:
    rows = [PromptRow(f"prompt {i}", {"clinic": name}) for i, name in enumerate("abacbc")]
    parts = rows_by_client(rows, 3, "clinic")
    assert [[row.prompt for row in part] for part in parts] == [
        ["prompt 0", "prompt 2"],
        ["prompt 1", "prompt 4"],
        ["prompt 3", "prompt 5"],
    ]


def test_another_number_of_clients_than_the_column_has_is_refused_with_that_number() -> None:
    with pytest.raises(DataError, match="3 values for 2 clients") as refused:
        rows_by_client(_rows(["a", "b", "c"]), 2, "task")
    assert "simulation.clients = 3" in str(refused.value)


def test_a_row_without_the_column_is_named() -> None:
    rows = [*_rows(["a"]), PromptRow("other", {})]
    with pytest.raises(DataError, match=r"row 2 .* 'task', which data.client_column names"):
        rows_by_client(rows, 1, "task")
