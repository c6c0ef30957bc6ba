import json
from dataclasses import MISSING, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RunError
from fedgrpo.report import PHASES, Guarantee, RoundRow, Summary, from_json, to_json
from fedgrpo.settings import METRICS
from tests.report.runs import SUMMARY, round_row

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | finite
rows = st.builds(
    RoundRow,
    round=st.integers(0, 10**6),
    applied=st.booleans(),
    reason=st.text(),
    metrics=st.dictionaries(st.sampled_from(list(METRICS)), finite),
    clipping_norm=maybe,
    update_norm=maybe,
    finished=st.integers(0, 10**6),
    dropped=st.integers(0, 10**6),
    buckets=st.integers(0, 10**6),
    epsilon=maybe,
    seconds=st.dictionaries(st.sampled_from(PHASES), finite),
    sampled=maybe,
    greedy=maybe,
    kl_base=maybe,
    members=st.none() | st.integers(3, 4),
    held_out_rewards=st.dictionaries(st.text(), st.dictionaries(st.text(), finite)),
    held_out_by=st.dictionaries(st.text(), st.dictionaries(st.text(), finite)),
    bytes=st.dictionaries(st.sampled_from(["sent", "received"]), st.integers(0, 2**60)),
    warnings=st.lists(st.text()),
)


@pytest.mark.slow
@given(rows)
def test_a_row_comes_back_as_it_was_written_and_fills_one_line(row: RoundRow) -> None:
    text = to_json(row)
    assert from_json(RoundRow, text) == row
    assert len(text.splitlines()) == 1


def test_a_summary_comes_back_as_it_was_written() -> None:
    assert from_json(Summary, to_json(SUMMARY)) == SUMMARY


def test_summary_json_has_the_documented_shape() -> None:
    tree = json.loads(to_json(SUMMARY))
    own = {"start", "end", "greedy_start", "greedy_end", "by", "pass_at"}
    assert set(tree["reward"]) == own
    assert tree["privacy"] == [
        {"unit": "prompt", "adversary": "the server", "epsilon": 5.39, "delta": 1e-5}
    ]
    assert set(tree["robust"]) == {"rule", "trim", "buckets", "words"}
    assert {"rounds", "wall_s", "overhead_share", "dropped"} <= set(tree)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["reward", "kl", "clipping_norm", "epsilon"])
def test_a_figure_that_json_cannot_carry_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(RunError, match=rf"RoundRow\.(metrics\.)?{name} = -?(nan|inf)"):
        to_json(round_row(3, **{name: value}))


def test_nan_is_refused_inside_nested_records_too() -> None:
    with pytest.raises(RunError, match=r"seconds\.train"):
        to_json(round_row(3, seconds={"train": float("nan")}))
    with pytest.raises(RunError, match=r"privacy\.0\.epsilon"):
        to_json(replace(SUMMARY, privacy=[Guarantee("prompt", "the server", float("inf"), 1e-5)]))


def test_nan_is_refused_when_read() -> None:
    text = to_json(round_row(3)).replace('"kl": 0.0042', '"kl": NaN')
    with pytest.raises(RunError, match="finite"):
        from_json(RoundRow, text)


@pytest.mark.parametrize(
    "name", [each.name for each in fields(RoundRow) if each.default_factory is MISSING]
)
def test_a_missing_or_unknown_key_is_refused_by_name(name: str) -> None:
    tree = json.loads(to_json(round_row(3)))
    value = tree.pop(name)
    with pytest.raises(RunError, match=name):
        from_json(RoundRow, json.dumps(tree))
    with pytest.raises(RunError, match="surprise"):
        from_json(RoundRow, json.dumps({**tree, name: value, "surprise": 1}))


@pytest.mark.parametrize(
    ("name", "value"), [("round", 1.5), ("round", "3"), ("applied", 1), ("reward", "0.5")]
)
def test_a_wrong_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(RunError, match=name):
        to_json(round_row(3, **{name: value}))
