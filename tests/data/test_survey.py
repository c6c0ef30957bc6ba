"""A survey looks at every row, counts each reason, and quotes none."""

import json
from pathlib import Path

import pytest

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.sources import Source
from fedgrpo.data.survey import survey_rows, survey_source
from fedgrpo.ground.errors import DataError


def length(prompt: object) -> int:
    return len(str(prompt))


def test_usable_rows_are_kept_with_their_lengths_and_the_others_counted() -> None:
    rows = [PromptRow("ab"), PromptRow("abcdef"), PromptRow(""), PromptRow("abc")]
    found = survey_rows(rows, length, 4)
    assert found.rows == (rows[0], rows[3])
    assert found.lengths == (2, 3)
    assert sum(found.refused.values()) == 2
    assert found.count == 4


def test_one_bad_row_does_not_hide_the_next(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    bad = [{"question": "secret"}, ["secret"], {"prompt": 7}, {"answer": "secret"}]
    path.write_text("\n".join(json.dumps(row) for row in [*bad, {"prompt": "ok"}]))
    found = survey_source(Source(str(path)), length, 10)
    assert found.lengths == (2,)
    assert found.refused == {
        "has no prompt; it has 'question'": 1,
        "has no prompt; it has 'answer'": 1,
        "is not an object": 1,
        "has a prompt of type int": 1,
    }


def test_a_source_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        survey_source(Source(str(tmp_path / "none.jsonl")), length, 10)
