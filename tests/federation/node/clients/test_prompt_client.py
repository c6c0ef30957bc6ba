"""The client under prompt-level privacy: whatever one prompt is or does, it moves its own row."""

import json
import math
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from fedgrpo.data.prompts import Prompt, PromptRow
from fedgrpo.federation.node.clients import prompt_client
from fedgrpo.federation.node.clients.client import local_client
from fedgrpo.federation.node.clients.prompt_client import (
    PromptClient,
    encoding_limits,
    order_seconds,
)
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.grpo.isolated import encoding
from fedgrpo.grpo.isolated.apart import Limits, can_fork
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.base import load_base
from fedgrpo.model.encoding import encode_prompt
from fedgrpo.model.lora import Adapter
from fedgrpo.privacy.grid import GRID_BITS, GridSum
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.rewards.loading import load_metrics
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.settings import RewardSettings, Scalar, Settings
from fedgrpo.site.declared import Declared
from tests.crafted import force, silencer, trigger
from tests.models import graded

pytestmark = pytest.mark.slow

KEY = bytes(range(32))
OTHERS = [PromptRow(f"{i}+{i}=", {"answer": str(2 * i), "who": str(i // 2)}) for i in range(30)]
VICTIM = PromptRow("rev qzkj=", {"answer": "jkzq", "who": "7"})


@lru_cache(maxsize=4)
def settings(**changed: Scalar) -> Settings:
    small: dict[str, Scalar] = {
        "data.min_prompts": 1000,
        "grpo.prompts_per_step": 1000,
        "grpo.group_size": 4,
        "grpo.max_completion_length": 4,
        "grpo.overlong_share": 1.0,
        "privacy.noise": "server",
        "privacy.max_epsilon": 1e9,
        "model.device": "cpu",
    }
    return Settings.from_run_config(small | {k.replace("__", "."): v for k, v in changed.items()})


@lru_cache(maxsize=1)
def own_adapter() -> Adapter:
    return Adapter(load_base(settings().model), settings().adapter, 0)


def declared(longest: int = 16, units: int = 0) -> Declared:
    return Declared(units, longest, (), 0.0, any_weights=False)


def client(
    rows: Sequence[PromptRow], reward: object = graded, longest: int = 16, **changed: Scalar
) -> PromptClient:
    mixture = RewardMixture([("graded", reward, 1.0)])  # type: ignore[list-item]
    return PromptClient(settings(**changed), own_adapter(), mixture, rows, declared(longest))


@pytest.mark.parametrize("failing", [True, False])
def test_a_metric_that_fails_at_a_prompt_costs_that_prompts_figure_and_no_gradient(
    tmp_path: Path, failing: bool
) -> None:
    body = "    if 'qzkj' in prompts[0]:\n        raise ValueError(prompts)\n" if failing else ""
    file = tmp_path / "own.py"
    file.write_text(f"def half(completions, prompts):\n{body}    return [1.0] * len(completions)\n")
    named = {"privacy__metrics": f"reward, {file}:half"}
    reward = RewardMixture([("graded", graded, 1.0)]).measuring(load_metrics([f"{file}:half"]))
    sums, watches = [], []
    for rows in (OTHERS[:3], [*OTHERS[:3], VICTIM]):
        made = PromptClient(settings(**named), own_adapter(), reward, rows, declared())
        every = [row for name in made.units for row in made.rows(name, KEY)]
        watches.append(Watch(None, "", math.inf))
        sums.append(made.clipped_sum(every, 1.0, watches[-1]))
    assert sums[1].units - sums[0].units == 1
    # 1 is the upper end of the range: half of a unit's share, or nothing.
    assert sums[1].metrics[-1] - sums[0].metrics[-1] == (0 if failing else 1 << (GRID_BITS - 1))
    assert (sums[1].direction != sums[0].direction).any()
    left_out = "figure of a prompt left out: its metric gave no number"
    assert watches[1].mishaps[left_out] == failing


def plan(**changed: Scalar) -> ReleasePlan:
    return release_plan(settings(**changed), own_adapter().dimension, 1.0)


def clipped(which: PromptClient, state: AdapterState, watch: Watch | None = None) -> GridSum:
    """The sum that a round would release, before its noise."""
    watch = watch or Watch()
    force(which.engine.policy.adapter, state)
    return which.clipped_sum(which.sampled(plan(), KEY, watch), 1.0, watch)


def start() -> AdapterState:
    adapter = own_adapter()
    rng = np.random.default_rng(0)
    state = adapter.state()
    return state.moved((0.01 * rng.standard_normal(adapter.dimension)).astype(np.float32))


def length(total: GridSum) -> float:
    return math.sqrt(sum(int(step) ** 2 for step in total.direction)) / 2**GRID_BITS


def minus(whole: GridSum, part: GridSum) -> GridSum:
    return GridSum(
        whole.direction - part.direction,
        whole.metrics - part.metrics,
        whole.indicator - part.indicator,
        whole.units - part.units,
    )


CRAFTS = {
    "honest": start,
    "gradient overflows for q": lambda: silencer(own_adapter(), "q"),
    "NaN for q": lambda: trigger(own_adapter(), "q"),
    "NaN for 1": lambda: trigger(own_adapter(), "1"),
}


@pytest.mark.parametrize("name", CRAFTS)
def test_one_prompt_moves_the_clipped_sum_by_exactly_its_own_row(name: str) -> None:
    """Whatever adapter the server sends: at most 1 C, in whole numbers, in any place."""
    state, place = CRAFTS[name](), 11
    beside = clipped(client([*OTHERS[:place], VICTIM, *OTHERS[place:]]), state)
    without, alone = clipped(client(OTHERS), state), clipped(client([VICTIM]), state)
    moved = minus(beside, without)
    assert length(moved) <= 1
    for field in ("direction", "metrics", "indicator", "units"):
        assert np.array_equal(getattr(moved, field), getattr(alone, field))
    if name == "honest":
        assert alone.units == 1
        assert without.units == len(OTHERS)
    if name.endswith("q"):
        assert alone.units == 0
        assert without.units > 20


def test_a_trigger_is_answered_like_any_other_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-six triggers used to read off which letters occur; now each is one release."""
    monkeypatch.setattr(Adapter, "load", force)
    which, sizes = client([*OTHERS, VICTIM]), set()
    for character in "aqz":
        watch = Watch()
        released = which.contribute(trigger(own_adapter(), character), plan(), 1, KEY, watch)
        assert np.isfinite(released).all()
        sizes.add(released.shape)
        lost = watch.mishaps["prompt left out: the model gave no distribution"]
        # A completion may hold the character where the prompt does not.
        assert lost > 0 or character not in str(VICTIM.prompt)
    assert sizes == {(plan().size,)}


@pytest.mark.parametrize(
    "bad",
    [
        PromptRow("9" * 17, {"answer": "2"}),
        PromptRow(({"role": "user", "content": "1+1="},), {"answer": "2"}),
        PromptRow("fail=", {"answer": "2"}),
        PromptRow("huge=", {"answer": "2"}),
    ],
    ids=["too long", "no template", "reward raises", "rewards overflow"],
)
def test_a_prompt_that_fails_costs_its_own_row_alone(bad: PromptRow) -> None:
    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        if prompts[0] == "fail=":
            raise ValueError(prompts[0])
        scale = 1.7e308 if prompts[0] == "huge=" else 1.0
        return [scale * (-1) ** i * value for i, value in enumerate(graded(completions))]

    state, watch = start(), Watch()
    beside = clipped(client([*OTHERS, bad], reward), state, watch)
    without = clipped(client(OTHERS, reward), state)
    assert beside.direction.tobytes() == without.direction.tobytes()
    assert beside.metrics.tobytes() == without.metrics.tobytes()
    assert beside.units == without.units == len(OTHERS)
    assert sum(watch.mishaps.values()) == 1
    assert not any(str(bad.prompt) in cause for cause in watch.mishaps)


def test_rows_of_one_unit_are_clipped_together() -> None:
    """Copies of a text, and rows of a person, move the sum by at most C together."""
    copies = [PromptRow("12+12=", {"answer": "24", "n": n}) for n in range(5)]
    total = clipped(client(copies), start())
    assert total.units == 1
    assert length(total) <= 1
    which = client(OTHERS, data__unit="who", data__unit_rows=2)
    assert len(which.units) == 15
    assert clipped(which, start()).units == 15
    watch = Watch()
    assert len(which.sampled(plan(), KEY, watch)) == 30


class PanicError(BaseException):
    """Stands for what a tokenizer raises whose code in Rust panics."""


@pytest.mark.parametrize("kind", [PanicError, CancelledError, SystemExit, MemoryError])
@pytest.mark.parametrize("where", ["tokenizer", "reward"])
def test_whatever_class_one_prompt_makes_foreign_code_raise_costs_its_row_alone(
    kind: type[BaseException], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(tokenizer: object, prompt: Prompt, *style: object) -> list[int]:
        if where == "tokenizer" and prompt == VICTIM.prompt:
            raise kind("rev qzkj=")
        return encode_prompt(tokenizer, prompt, *style)  # type: ignore[arg-type]

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        if where == "reward" and prompts[0] == VICTIM.prompt:
            raise kind("rev qzkj=")
        return graded(completions)

    monkeypatch.setattr(encoding, "encode_prompt", encoded)
    state, watch, few = start(), Watch(), OTHERS[:6]
    beside = clipped(client([*few, VICTIM], reward), state, watch)
    without = clipped(client(few), state)
    assert beside.direction.tobytes() == without.direction.tobytes()
    assert (beside.units, watch.mishaps.total()) == (len(few), 1)


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked safely here")
def test_at_a_site_a_prompt_that_a_tokenizer_never_ends_with_costs_its_row_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def encoded(tokenizer: object, prompt: Prompt, *style: object) -> list[int]:
        while prompt == VICTIM.prompt:
            pass
        return encode_prompt(tokenizer, prompt, *style)  # type: ignore[arg-type]

    monkeypatch.setattr(encoding, "encode_prompt", encoded)
    monkeypatch.setattr(prompt_client, "_SLOWEST_ROW_S", 0.05)
    mixture = RewardMixture([("graded", graded, 1.0)])
    site, few, watch = declared(units=1000), OTHERS[:6], Watch()
    beside = PromptClient(settings(), own_adapter(), mixture, [VICTIM, *few], site)
    without = PromptClient(settings(), own_adapter(), mixture, few, site)
    released = beside.contribute(start(), plan(), 1, KEY, watch)
    assert released.tobytes() == without.contribute(start(), plan(), 1, KEY, Watch()).tobytes()
    assert watch.mishaps["row takes too long to encode"] == 1


def test_time_for_encoding_is_a_share_of_the_answers_and_finds_room_for_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = replace(declared(units=200), answer_after_s=240.0)
    limits = encoding_limits(site)
    assert limits.all_s == 30.0
    assert limits.item_s * site.units <= limits.all_s / 2
    assert encoding_limits(replace(site, units=10**6)).item_s == 0.02
    sized = order_seconds(settings(), site)
    monkeypatch.setattr(prompt_client, "encoding_limits", lambda _: Limits(1.0, 1030.0))
    assert order_seconds(settings(), site) - sized == pytest.approx(1000.0)


@pytest.mark.parametrize(("rows", "advantage"), [(2, "grpo"), (3, "rank")])
def test_units_of_several_rows_and_widths_are_each_clipped_once_with_all_their_rows(
    rows: int, advantage: str
) -> None:
    """The sum is that of the units computed alone, to the step: whatever batches rows are in."""
    lengths = (1, 3, 9, 17, 31, 40)
    people = [
        PromptRow(f"{i}" * lengths[i % 6] + "=", {"answer": str(i), "who": str(i * 7 % 5)})
        for i in range(17)
    ]
    changed: dict[str, Scalar] = {"grpo__entropy_weight": 0.1, "grpo__advantage": advantage}
    which = client(people, longest=96, data__unit="who", data__unit_rows=rows, **changed)
    assert len(which.layout.widths) > 2
    force(which.engine.policy.adapter, start())
    names, watch = list(which.units), Watch()
    taken = {name: [row for row in which.rows(name, KEY) if row.ids] for name in names}
    alone = [which.clipped_sum(taken[name], 1.0, Watch()) for name in names]
    expected = sum(alone[1:], alone[0])
    together = [row for name in names for row in taken[name]]
    for order in (together, together[::-1], together[::2] + together[1::2]):
        total = which.clipped_sum(order, 1.0, watch)
        assert total.units == len(names)
        for field in ("direction", "metrics", "indicator"):
            assert np.array_equal(getattr(total, field), getattr(expected, field))
    assert not watch.mishaps
    assert max(map(len, taken.values())) == rows


def test_a_unit_counts_with_all_of_its_rows_or_not_at_all_where_time_is_short() -> None:
    """Cut off after any number of batches, what is summed is whole units."""
    people = [PromptRow("7" * (1 + i) + "=", {"who": str(i % 8)}) for i in range(24)]
    which = client(people, longest=32, data__unit="who", data__unit_rows=3)
    force(which.engine.policy.adapter, start())
    together = [row for name in which.units for row in which.rows(name, KEY)]
    alone = {
        name: which.clipped_sum(list(which.rows(name, KEY)), 1.0, Watch()) for name in which.units
    }

    for batches in range(1, 12):
        watch = Short()
        watch.batches = batches
        total = which.clipped_sum(together, 1.0, watch)
        counted = list(alone.values())[: total.units]
        nothing = GridSum.nothing(total.direction.size, total.metrics.size)
        assert np.array_equal(total.direction, sum(counted, nothing).direction)
        assert total.units + sum(watch.mishaps.values()) >= 8


def test_dead_units_are_left_out_and_suspects_computed_alone_to_the_same_bits() -> None:
    which, state = client(OTHERS), start()
    names = list(which.units)
    expected = clipped(which, state)
    watch = Watch()
    watch.suspects = frozenset(names[:3])
    assert clipped(which, state, watch).direction.tobytes() == expected.direction.tobytes()
    watch = Watch()
    watch.dead = frozenset(names[:1])
    moved = minus(expected, clipped(which, state, watch))
    assert moved.units == 1
    assert length(moved) <= 1
    assert watch.mishaps["unit left out: the process died at it"] == 1


class Short(Watch):
    """Time for so many batches."""

    batches = 10**6

    def left(self) -> float:
        self.batches -= 1
        return self.batches


def test_suspects_take_no_time_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed one by one they take longer, so they come last, in the order of their keys."""
    which, watch = client(OTHERS), Short()
    force(which.engine.policy.adapter, start())
    names, begun = list(which.units), []
    watch.suspects = frozenset(names[:20])
    monkeypatch.setattr(watch, "begin", lambda batch: begun.append(list(batch)))
    together = [row for name in names for row in which.rows(name, KEY)]
    which.engine.collect(together, watch)
    ordinary = begun[:-20]
    assert begun[-20:] == [[name] for name in names[:20]]
    assert sorted(name for batch in ordinary for name in batch) == sorted(names[20:])
    for more in (0, 5):
        # The clock is looked at before each batch, and once by each part that ends.
        watch.batches = len(ordinary) + more + 1
        judged = which.engine.collect(together, watch)
        assert [j.row.unit for j in judged] == [*names[20:], *names[:more]]


def test_where_time_is_over_units_are_left_out_in_the_order_of_their_keys() -> None:
    which, state = client(OTHERS), start()
    watch = Watch(None, "", -math.inf)
    total = clipped(which, state, watch)
    assert total.units == 0
    assert not total.direction.any()
    assert watch.mishaps["left out: time was over"] == len(OTHERS)


def test_no_more_units_take_part_than_time_is_sized_for() -> None:
    few = settings(grpo__prompts_per_step=1)
    mixture = RewardMixture([("graded", graded, 1.0)])
    which = PromptClient(few, own_adapter(), mixture, OTHERS, declared(units=10**6))
    # A millionth of thirty units: hardly ever any.
    asked = release_plan(few, own_adapter().dimension, 1.0)
    assert which.sampled(asked, KEY, Watch()) == []


def test_one_unreadable_line_costs_that_line_alone(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) for i in range(20)]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([*lines[:7], "{not JSON", '{"prompt": null}', *lines[7:]]))
    few = settings(data__min_prompts=20, grpo__prompts_per_step=20)
    which = local_client(few, {"prompts": str(path), "partition-id": 0})
    assert isinstance(which, PromptClient)
    assert len(which.units) == 20
    watch = Watch()
    asked = release_plan(few, which.engine.policy.adapter.dimension, 1.0)
    which.contribute(which.engine.policy.adapter.state(), asked, 1, KEY, watch)
    assert watch.mishaps["row of the source cannot be read"] == 2


def test_an_order_is_sized_by_public_figures() -> None:
    seconds = order_seconds(settings(grpo__prompts_per_step=8), declared(units=1000))
    assert 0 < seconds < math.inf


def test_what_rewards_take_that_run_a_model_is_sized_too() -> None:
    asked = settings(grpo__prompts_per_step=8)
    reward = isolated_mixture(RewardSettings(functions=("judged_grounding",)), most_tokens=1100)
    reward.bind(own_adapter())
    longer = order_seconds(asked, declared(units=1000), reward)
    assert longer > order_seconds(asked, declared(units=1000))
