"""A task that few clients have is theirs alone."""

from __future__ import annotations

import pytest

from fedgrpo.data.ownership import node_prompts
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Settings


def tasks_of(few: object, clients: int = 6) -> list[set[str]]:
    settings = Settings.from_mapping(
        {
            "simulation": {"clients": clients},
            "federation": {"min_clients": clients},
            "robust": {"trim": 0},
            "data": {"task_clients": few, "prompts_per_client": 60, "min_prompts": 60},
        }
    )
    configs = ({"partition-id": i, "num-partitions": clients} for i in range(clients))
    return [{str(row.columns["task"]) for row in node_prompts(settings, c)} for c in configs]


def test_the_last_clients_have_the_task_and_the_others_none_of_it() -> None:
    *others, first, second = tasks_of({"reverse": 2})
    assert first == second == {"reverse"}
    assert set.union(*others) == {"add", "sort", "maximum"}


def test_each_client_can_have_one_task() -> None:
    found = tasks_of("add=2, reverse=1, sort=2, maximum=1")
    assert sorted(map(str, found)) == sorted(
        str({task}) for task in ("add", "add", "maximum", "reverse", "sort", "sort")
    )


@pytest.mark.parametrize(
    ("few", "problem"),
    [
        ({"juggle": 1}, "gives 'juggle' to 1 clients"),
        ({"add": 0}, "gives 'add' to 0 clients"),
        ({"add": "two"}, "gives 'add' to 'two' clients"),
        ({"add": 7}, "7 of simulation.clients = 6"),
        ({"add": 1, "reverse": 1, "sort": 1, "maximum": 1}, "nothing to the others"),
    ],
)
def test_task_clients_that_cannot_be_are_refused(few: object, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        tasks_of(few)
