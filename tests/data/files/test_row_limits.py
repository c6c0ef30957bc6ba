"""A row that is too large costs itself alone, before anything is done with it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgrpo.data.files.row_limits import DEEPEST, OTHER_BYTES, TOKEN_CHARACTERS, RowLimit, size
from fedgrpo.data.prompts import usable_prompts
from fedgrpo.data.sources import Source
from fedgrpo.data.survey import survey_source
from fedgrpo.ground.errors import DataError

LIMIT = RowLimit(8)
LONG = "a" * (TOKEN_CHARACTERS * 8)
GOOD = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(5)]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


LARGE: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": LONG + "b"},
    "messages": {"prompt": [{"role": "user", "content": LONG}]},
    "column": {"prompt": "1", "facts": ["x" * 100] * (OTHER_BYTES // 50)},
    "line": {"prompt": "1", "answer": "é" * OTHER_BYTES},
    "depth": {"prompt": "1", "answer": nested(DEEPEST)},
    "stack": {"prompt": "1", "answer": nested(600)},
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_row_that_is_too_large_costs_itself_alone(tmp_path: Path, name: str, place: int) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps(row) for row in [*GOOD[:place], LARGE[name], *GOOD[place:]]]
    path.write_text("\n".join(lines))
    rows, bad = usable_prompts(Source(str(path)), LIMIT)
    assert [row.prompt for row in rows] == [row["prompt"] for row in GOOD]
    assert bad == 1
    # A site's own people are told before.
    survey = survey_source(Source(str(path)), lambda _: 1, 100, LIMIT)
    assert sum(survey.refused.values()) == 1


def test_rows_at_the_limit_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    row = {"prompt": LONG, "answer": nested(DEEPEST - 1)}
    path.write_text(json.dumps(row) + "\r\n" + json.dumps(GOOD[0]))
    assert len(usable_prompts(Source(str(path)), LIMIT)[0]) == 2
    assert size({"ab": ["c", 1, None]}) == 1 + 2 + 3 + 3


def test_a_line_that_is_too_long_is_never_held_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "mine.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "1"}\n')
        for _ in range(40):
            file.write(b" " * 10**6)
        file.write(b'\n{"prompt": "2"}')
    tracemalloc.start()
    rows, bad = usable_prompts(Source(str(path)), LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ([row.prompt for row in rows], bad) == (["1", "2"], 1)
    assert peak < 8 * 10**6


def test_rows_of_parquet_are_held_against_the_same_limit(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist([*GOOD, {"prompt": LONG + "b", "answer": ""}]), path)
    rows, bad = usable_prompts(Source(str(path)), LIMIT)
    assert (len(rows), bad) == (5, 1)


def test_what_is_wrong_is_told_without_a_value(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        LIMIT.check(LARGE["prompt"])
    assert "aaa" not in str(caught.value)
