import pytest

from fedgrpo.data.tasks import TASKS, generate, half_of, is_held_out
from fedgrpo.data.units import units_of
from fedgrpo.ground.errors import DataError

NAMES = tuple(TASKS)


def test_no_client_can_draw_an_evaluation_prompt() -> None:
    held = {row.prompt for row in generate(NAMES, 500, [1.0] * 4, 0, held_out=True)}
    for seed in range(5):
        drawn = {row.prompt for row in generate(NAMES, 500, [1.0] * 4, seed, held_out=False)}
        assert not held & drawn
    assert all(is_held_out(str(prompt)) for prompt in held)


def test_answers_are_right() -> None:
    for row in generate(NAMES, 400, [1.0] * 4, 1, held_out=False):
        text, answer = str(row.prompt).removesuffix("="), row.columns["answer"]
        expected = {
            "add": lambda t: str(sum(map(int, t.split("+")))),
            "reverse": lambda t: t.removeprefix("rev ")[::-1],
            "sort": lambda t: "".join(sorted(t.removeprefix("sort "))),
            "maximum": lambda t: str(max(map(int, t.removeprefix("max ").split(",")))),
        }[row.columns["task"]](text)
        assert answer == expected


def test_shares_follow_the_weights_and_the_seed_repeats_them() -> None:
    drawn = generate(NAMES, 1000, [0.0, 0.0, 0.8, 0.2], 2, held_out=False)
    tasks = [row.columns["task"] for row in drawn]
    assert set(tasks) == {"sort", "maximum"}
    assert 740 <= tasks.count("sort") <= 860
    again = generate(NAMES, 1000, [0.0, 0.0, 0.8, 0.2], 2, held_out=False)
    assert [r.prompt for r in drawn] == [r.prompt for r in again]


def test_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="reverse"):
        generate(("juggle",), 1, [1.0], 0, held_out=False)


def test_a_clients_prompts_are_as_many_units_as_it_was_promised() -> None:
    for weights in ([1.0, 0.0, 0.0, 0.0], [0.01, 0.97, 0.01, 0.01]):
        rows = generate(NAMES, 2000, weights, 3, held_out=False, distinct=True)
        assert len(units_of(rows)) == len(rows) == 2000


def test_more_prompts_than_there_are_is_an_error_and_no_endless_search() -> None:
    with pytest.raises(DataError, match=r"after 9\d{3} of 20000 prompts"):
        generate(("add",), 20_000, [1.0], 0, held_out=False, distinct=True)


def test_halves_are_alike_and_follow_from_the_text_alone() -> None:
    rows = generate(NAMES, 1000, [1.0] * 4, 0, held_out=True)
    halves = [row.columns["half"] for row in rows]
    assert 400 <= halves.count("a") <= 600
    assert halves == [half_of(str(row.prompt)) for row in rows]
