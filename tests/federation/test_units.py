"""Through the client: a unit's rows share one coin, and move the sum by one clipped gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedgrpo.data import PromptRow, units_of
from fedgrpo.federation.node.clients.prompt_client import PromptClient
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.grpo.isolated.engine import Judged, Lesson
from fedgrpo.grpo.isolated.keys import Row
from fedgrpo.privacy.grid import GridSum
from fedgrpo.settings import METRICS, Settings
from fedgrpo.site.declared import Declared

DIMENSION, DECLARED = 5, 40
PERSONS = 20


def make(unit: str = "", unit_rows: int = 1) -> Settings:
    flat = {"data.unit": unit, "data.unit_rows": unit_rows, "grpo.prompts_per_step": 20}
    return Settings.from_run_config(flat | {"data.min_prompts": DECLARED})


def gradient_of(text: str) -> torch.Tensor:
    """Long ones, in a direction that the text alone decides."""
    rng = np.random.default_rng(sum(text.encode()))
    return torch.from_numpy(3 * rng.normal(size=DIMENSION))


class Engine:
    """Lessons that each prompt's text decides, for a client of these rows."""

    def __init__(self, rows: Sequence[PromptRow]) -> None:
        self.rows = rows
        self.policy = SimpleNamespace(adapter=SimpleNamespace(dimension=DIMENSION))

    def collect(self, rows: Sequence[Row], guard: object) -> list[Judged]:
        figures = {name: np.full(1, 0.5) for name in METRICS}
        told: Any = SimpleNamespace(per_prompt=lambda: figures)
        return [Judged(row, told) for row in rows]

    def teach(self, judged: Sequence[Judged], guard: object) -> Iterator[Any]:
        lessons = [Lesson(j, gradient_of(str(self.rows[j.row.index].prompt))) for j in judged]
        yield lessons, {j.row.unit for j in judged}


class Client(PromptClient):
    def __init__(self, settings: Settings, rows: Sequence[PromptRow]) -> None:
        self.settings, self.unread, self.late, self.spans = settings, 0, 0, {}
        self.declared = Declared(DECLARED, 8, (), 0.0, any_weights=False)
        self.units = {unit.name: unit for unit in units_of(rows, settings.data.unit)}
        self.ids = [(1,)] * len(rows)
        self.engine: Any = Engine(rows)


def rows_of(persons: range, copies: int = 3) -> list[PromptRow]:
    """Each person's own rows, the first of which has a text that all persons share."""
    return [
        PromptRow("shared" if n == 0 else f"{person} says {n}", {"person": person, "n": n})
        for person in persons
        for n in range(copies)
    ]


def sampled(client: Client, key: bytes) -> list[Row]:
    plan = release_plan(client.settings, DIMENSION, 1.0)
    return client.sampled(plan, key, Watch())


def summed(client: Client, key: bytes) -> GridSum:
    return client.clipped_sum(sampled(client, key), 1.0, Watch())


def keys(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_rows_of_a_person_are_sampled_together_up_to_the_limit(limit: int) -> None:
    client, rows = Client(make("person", limit), rows_of(range(PERSONS))), rows_of(range(PERSONS))
    for key in keys(20):
        taken = [rows[row.index].columns["person"] for row in sampled(client, key)]
        assert all(taken.count(person) == min(limit, 3) for person in set(taken))


def test_copies_of_a_text_are_sampled_as_often_as_a_single_text() -> None:
    rows = [PromptRow("copied", {"n": n}) for n in range(10)] + [PromptRow("single", {})]
    client = Client(make(), rows)
    assert len(client.units) == 2
    drawn = [{rows[row.index].prompt for row in sampled(client, key)} for key in keys(600)]
    for text in ("copied", "single"):
        # At a rate of 20 / 40; the standard deviation is 12.
        assert abs(sum(text in some for some in drawn) - 300) < 60


def test_the_rate_is_taken_over_the_declared_number_of_units() -> None:
    client = Client(make("person"), rows_of(range(PERSONS)))
    counts = [len(sampled(client, key)) for key in keys(100)]
    assert abs(np.mean(counts) - PERSONS / 2) < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["", "person"])
@pytest.mark.parametrize("limit", [1, 3])
def test_a_unit_taken_away_moves_the_sum_by_one_clipped_gradient(unit: str, limit: int) -> None:
    """All copies of a text; or a person, also one who shares a text with all others."""
    rows = rows_of(range(PERSONS)) if unit else rows_of(range(PERSONS), copies=1)
    away = "person" if unit else "n"
    less = [row for row in rows if row.columns[away] != 0]
    moved = []
    for key in keys(40):
        both = [summed(Client(make(unit, limit), some), key) for some in (rows, less)]
        moved.append(np.linalg.norm((both[0].direction - both[1].direction) / 2.0**40))
    assert max(moved) <= 1
    assert max(moved) > 0.99
    assert min(moved) == 0, "where its coin says no, nothing changes"


def test_one_copy_more_of_a_text_changes_its_own_unit_only() -> None:
    rows = [PromptRow(f"text {n}", {"answer": "1"}) for n in range(PERSONS)]
    more = [*rows, PromptRow("text 0", {"answer": "2"})]
    for key in keys(20):
        before, after = (sampled(Client(make(), some), key) for some in (rows, more))
        (own,) = {row.unit for row in sampled(Client(make(), rows[:1]), key)} or {""}
        assert [r.unit for r in before] == [r.unit for r in after]
        assert [r for r in before if r.unit != own] == [r for r in after if r.unit != own]
