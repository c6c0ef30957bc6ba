"""Shapes follow from public figures and a prompt's own length; what is cut off, from the order."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.grpo.isolated.proof import Proof, most_sampled, sized_seconds
from fedgrpo.grpo.isolated.shapes import Layout, Schedule, certain, step_above
from fedgrpo.settings import GRPOSettings

GRPO = GRPOSettings(group_size=4, max_completion_length=40, prompts_per_step=16)
LAYOUT = Layout.of(GRPO, 100)


@given(tokens=st.integers(1, 100), lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_every_prompt_fits_into_a_shape_that_was_tried(tokens: int, lengths: list[int]) -> None:
    shape = LAYOUT.teaching(tokens, lengths)
    assert shape in LAYOUT.teaching_shapes()
    assert shape.width >= tokens
    assert shape.span >= sum(lengths)
    assert shape.length >= max(lengths)
    assert LAYOUT.sampling(tokens).width in LAYOUT.widths
    assert LAYOUT.alone().side(shape) == 1


def test_one_gradient_at_a_time_where_several_cannot_be_taken() -> None:
    layout = Layout.of(GRPO, 100, several=False)
    assert {layout.side(shape) for shape in layout.teaching_shapes()} == {1}
    assert max(map(LAYOUT.side, LAYOUT.teaching_shapes())) > 1


@given(st.integers(1, 5000))
def test_widths_of_a_simulated_site_double(tokens: int) -> None:
    width = step_above(tokens)
    assert width >= max(tokens, 16)
    assert width & (width - 1) == 0
    assert width == 16 or width // 2 < tokens


@dataclass
class Clock:
    """Time for so many batches."""

    batches: int

    def left(self) -> float:
        self.batches -= 1
        return self.batches + 1


KINDS, SIDE = 3, 4
SCHEDULE: Schedule[tuple[int, int]] = Schedule(lambda item: item[1], lambda _: SIDE, SIDE, KINDS)
ORDERS = st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=40)


def within(order: list[int], time: int) -> tuple[list[tuple[int, int]], int]:
    """Items that are computed in the time for so many batches, and how many are certain."""
    batches = list(SCHEDULE.in_time(list(enumerate(order)), Clock(time).left))
    assert all(len({kind for _, kind in batch}) == 1 for batch, _ in batches)
    return [item for batch, _ in batches for item in batch], batches[-1][1] if batches else 0


@given(order=ORDERS, time=st.integers(0, 12))
def test_what_is_certain_is_done(order: list[int], time: int) -> None:
    done, sure = within(order, time)
    assert len(set(done)) == len(done)
    assert set(range(sure)) <= {number for number, _ in done}
    assert sure <= len(order)
    assert sure == len(order) or sure == certain(time, SIDE, KINDS)


@given(order=ORDERS, time=st.integers(0, 12), where=st.integers(0, 40), kind=st.integers(0, 2))
def test_one_item_more_pushes_out_at_most_one_other(
    order: list[int], time: int, where: int, kind: int
) -> None:
    """Wherever it stands: as long as both orders are cut, and not just one of them."""
    place = min(where, len(order))
    longer = [*order[:place], kind, *order[place:]]
    (_, before), (_, after) = within(order, time), within(longer, time)
    if before == len(order) or after == len(longer):
        return
    kept = set(range(before))
    beside = {n if n < place else n - 1 for n in range(after) if n != place}
    assert len(kept - beside) <= 1
    assert beside <= kept


def test_all_is_certain_with_the_last_batch() -> None:
    done, sure = within([0, 1, 2] * 5, 100)
    assert sure == len(done) == 15


@pytest.mark.parametrize("units", [24, 60, 2000, 10**6])
def test_time_is_sized_for_all_but_one_sample_in_a_million_millions(units: int) -> None:
    from scipy.stats import binom

    most = most_sampled(units, 24, 1e-12)
    assert binom.sf(most, units, min(1.0, 24 / units)) <= 1e-12
    assert most == units or binom.sf(most - 1, units, 24 / units) > 1e-12
    if units == 2000:
        assert 60 < most < 70


def test_sized_time_grows_with_prompts_and_covers_one_at_a_time() -> None:
    proof = Proof(alone=False, sampling_s=1.0, teaching_s=2.0)
    costs = [sized_seconds(LAYOUT, proof, n, GRPO.group_size) for n in (1, 10, 100, 1000)]
    assert all(np.diff(costs) >= 0)
    assert costs[-1] >= 1000 / 8
    assert sized_seconds(LAYOUT.alone(), proof, 10, 4) >= 10 * 2.0 + 40 * 1.0
