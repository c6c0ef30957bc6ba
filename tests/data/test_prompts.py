from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Image
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.data import PromptRow, collate_columns, load_prompts
from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.prompts import sort_rows, usable_prompts
from fedgrpo.data.sources import Source
from fedgrpo.ground.errors import DataError

SECRET = "patient Zyx has"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SECRET}]
ROWS: list[dict[str, Any]] = [
    {"prompt": "1+1=", "answer": "2", "cases": [1, 2]},
    {"prompt": "2+2=", "answer": "4", "cases": []},
]


def _jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _parquet(path: Path, rows: list[Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _saved(path: Path, rows: list[Any]) -> Path:
    Dataset.from_list(rows).save_to_disk(str(path))
    return path


FORMS: dict[str, Callable[[Path, list[Any]], Path]] = {
    "p.jsonl": _jsonl,
    "p.parquet": _parquet,
    "saved": _saved,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_prompts_and_all_further_columns(tmp_path: Path, name: str) -> None:
    rows = load_prompts(str(FORMS[name](tmp_path / name, ROWS)))
    assert [row.prompt for row in rows] == ["1+1=", "2+2="]
    assert [dict(row.columns) for row in rows] == [
        {"answer": "2", "cases": [1, 2]},
        {"answer": "4", "cases": []},
    ]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_chat_messages(tmp_path: Path, name: str) -> None:
    source = FORMS[name](tmp_path / name, [{"prompt": CHAT, "answer": "2"}])
    (row,) = load_prompts(str(source))
    assert row.for_model() == CHAT
    assert isinstance(row.prompt, tuple)


def test_a_chosen_split_of_a_saved_dataset_is_read_and_a_wrong_one_named(tmp_path: Path) -> None:
    dataset = DatasetDict(test=Dataset.from_list(ROWS[1:]), train=Dataset.from_list(ROWS))
    dataset.save_to_disk(str(tmp_path / "d"))
    assert len(load_prompts(str(tmp_path / "d"), split="test")) == 1
    with pytest.raises(DataError, match=r"no split 'dev'(.|\n)*test, train"):
        load_prompts(str(tmp_path / "d"), split="dev")


def test_a_hub_dataset_is_loaded_by_name_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, config: str | None, *, split: str) -> Dataset:
        assert (name, config, split) == ("org/name", None, "dev")
        return Dataset.from_list(ROWS)

    monkeypatch.setattr("datasets.load_dataset", load)
    assert len(load_prompts("hf:org/name", split="dev")) == 2


def test_a_hub_datasets_configuration_is_chosen_and_a_missing_one_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(name: str, config: str | None, *, split: str) -> Dataset:
        if config is None:
            raise ValueError("Config name is missing. Please pick one among: main, socratic")
        return Dataset.from_list(ROWS)

    monkeypatch.setattr("datasets.load_dataset", load)
    assert len(load_prompts(Source("hf:openai/gsm8k", config="main"))) == 2
    with pytest.raises(DataError, match=r"data\.config"):
        load_prompts("hf:openai/gsm8k")


def test_a_hub_failure_names_the_dataset_and_not_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, config: str | None, *, split: str) -> Dataset:
        raise ConnectionError(SECRET)

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(DataError, match=r"'org/name', split 'train'.*ConnectionError") as caught:
        load_prompts("hf:org/name")
    _check_quiet(caught.value)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.integers()), min_size=1
    ).filter(lambda rows: all(text.strip() for text, _ in rows))
)
def test_any_text_survives_jsonl(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "p.jsonl"
    _jsonl(path, [{"prompt": text, "answer": number} for text, number in rows])
    assert [(row.prompt, row.columns["answer"]) for row in load_prompts(str(path))] == rows


def test_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}')
    assert [row.prompt for row in load_prompts(str(path))] == ["a", "b"]


GOOD = {"prompt": SECRET}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"text": SECRET}, "has no prompt"),
        ({"prompt": None, "text": SECRET}, "has an empty prompt"),
        ({"prompt": 7, "text": SECRET}, "prompt of type int"),
        ({"prompt": {"role": "user", "content": SECRET}}, "prompt of type dict"),
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": " \n"}, "empty prompt"),
        ({"prompt": []}, "empty prompt"),
        ({"prompt": [{"role": "user", "content": " "}]}, "empty prompt"),
        ({"prompt": [SECRET]}, "message of type str"),
        ({"prompt": [{"role": "user"}]}, "other keys than role and content"),
        ({"prompt": [{"role": "user", "content": SECRET, "name": "x"}]}, "other keys"),
        ({"prompt": [{"role": "user", "content": [SECRET]}]}, "several parts"),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]}, "parts"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "an image, sound or film"),
        ({"prompt": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "an image, sound"),
        ({"prompt": SECRET, "images": [{"bytes": SECRET}]}, "images in its column 'images'"),
        ({"prompt": [{"role": "tool", "content": SECRET}]}, "message of a tool"),
        ({"prompt": [{"role": "assistant", "tool_calls": [SECRET]}]}, "message of a tool"),
        ({"prompt": SECRET, "log_metric": 1}, "column 'log_metric'"),
        ({"prompt": [{"role": 1, "content": SECRET}]}, "is no text"),
        ({"prompt": [{"role": "", "content": SECRET}]}, "is no text"),
        ({"prompt": SECRET, "prompts": 1}, "column 'prompts'"),
        ({"prompt": SECRET, "completions": 1}, "column 'completions'"),
        ({"prompt": SECRET + "\ud800"}, "half a surrogate pair"),
        ([SECRET], "is not an object"),
        (SECRET, "is not an object"),
    ],
)
def test_a_bad_row_is_named_by_file_and_number_with_a_cure(
    tmp_path: Path, bad: object, problem: str
) -> None:
    path = _jsonl(tmp_path / "p.jsonl", [GOOD, bad])
    with pytest.raises(DataError, match=problem) as caught:
        load_prompts(str(path))
    assert f"{path}, row 2 " in str(caught.value)
    assert caught.value.cure
    _check_quiet(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f'{{"prompt": "{SECRET}"'.encode(), "row 3 is not valid JSON"),
        (SECRET.encode() + b"\xff", "row 3 is not UTF-8"),
        (b"[" * 100_000, "row 3 is not valid JSON"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "row 3 has a number of more than"),
    ],
)
def test_a_line_that_is_no_json_is_named_by_its_number(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n' + line)
    with pytest.raises(DataError, match=problem) as caught:
        load_prompts(str(path))
    _check_quiet(caught.value)


TWICE = [
    '{"prompt": "SECRET a", "prompt": "SECRET b"}',
    '{"prompt": [{"role": "user", "content": "SECRET a", "content": "SECRET b"}]}',
]


@pytest.mark.parametrize("row", TWICE)
def test_a_row_in_which_one_value_hides_another_counts_nothing(tmp_path: Path, row: str) -> None:
    """Which one was meant only its owner knows: refused by its number, its content never told."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "1+1="}\n\n' + row.replace("SECRET", SECRET) + "\n")
    with pytest.raises(DataError, match="row 3 has a name twice, and only one value") as caught:
        load_prompts(str(path))
    assert SECRET not in str(caught.value)
    rows, bad = usable_prompts(Source(str(path)))
    assert ([row.prompt for row in rows], bad) == (["1+1="], 1)


FEW = b'[{"prompt": "1+1="}, {"prompt": "SECRET", %s}, {"prompt": "2+2="}]'


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.json", FEW % b'"a": 1, "a": 2', "row 2 has a name twice"),
        ("p.json", FEW % (b'"a": {"b": [%s]}' % (b"9" * 5000)), "row 2 has a number of more than"),
        (
            "p.jsonl",
            b'{"prompt": "1+1="}\n{"prompt": %s}\n{"prompt": "2+2="}' % (b"1" * 5000),
            "more",
        ),
        ("p.csv", b"prompt,a\n1+1=,2\nSECRET\xfc,3\n2+2=,4\n", "row 2 is not UTF-8"),
        ("p.csv", b'prompt,a\n1+1=,2\n"SECRET,3\n2+2=,4\n', "row 2 has a quote that nothing"),
        ("p.tsv", b'prompt\ta\n1+1=\t2\n\n"SECRET\t3\n2+2=\t4', "row 2 has a quote that nothing"),
        ("p.csv", b'prompt,a\n1+1=,2\nSECRET,3,4\n2+2=,"4\n"\n', "row 2 has more fields"),
    ],
)
def test_a_row_that_cannot_be_read_costs_no_other(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content.replace(b"SECRET", SECRET.encode()))
    rows, failures = sort_rows(Source(str(tmp_path / name)))
    assert [row.prompt for row in rows] == ["1+1=", "2+2="]
    (failure,) = failures
    assert problem in failure.problem
    _check_quiet(failure)


def test_a_value_that_python_cannot_hold_costs_its_row_in_a_table_alone(tmp_path: Path) -> None:
    """Of a batch of parquet's rows, none of which could be read together."""
    texts = pa.array([b"1+1=", b"\xff" + SECRET.encode(), b"2+2=", b"3+3="]).view(pa.string())
    far = pa.array([0, 0, 0, 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"prompt": texts, "when": far}), tmp_path / "p.parquet")
    rows, failures = sort_rows(Source(str(tmp_path / "p.parquet")))
    assert [(row.prompt, row.number) for row in rows] == [("1+1=", 1), ("2+2=", 3)]
    told = [failure.problem.partition(", row ")[2] for failure in failures]
    assert told == ["2 cannot be read (UnicodeDecodeError)", "4 cannot be read (OverflowError)"]
    _check_quiet(failures[0])


def test_a_row_that_its_dataset_cannot_make_costs_no_other(tmp_path: Path) -> None:
    """Here a picture that is none: its column is decoded when its row is read."""
    pictures = [{"path": None, "bytes": SECRET.encode()}, None]
    made = Dataset.from_dict({"prompt": ["1+1=", "2+2="], "image": pictures})
    made.cast_column("image", Image()).save_to_disk(tmp_path / "saved")
    rows, failures = sort_rows(Source(str(tmp_path / "saved")))
    assert [row.prompt for row in rows] == ["2+2="]
    assert "row 1 cannot be read" in failures[0].problem
    _check_quiet(failures[0])


def test_a_bad_row_in_parquet_is_numbered_from_one(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "p.parquet", [GOOD, {"prompt": None}])
    with pytest.raises(DataError, match="row 2 has an empty prompt"):
        load_prompts(str(path))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.jsonl", b"", "has no rows"),
        ("p.jsonl", b"\n\n", "has no rows"),
        ("p.parquet", b"", "not a readable parquet"),
        ("p.parquet", SECRET.encode() * 99, "not a readable parquet"),
        ("p.txt", b"prompt\na\n", "unknown kind"),
        ("p.jsonl.gz", SECRET.encode(), "cannot be read"),
        ("p.jsonl.gz", gzip.compress(b'{"prompt": "a"}' * 99, mtime=0)[:40], "cannot be read"),
        ("p.csv", b"prompt\n\xff\n", "row 1 is not UTF-8"),
        ("p.json", b'[{"prompt": "a"},', "is not valid JSON"),
        ("p.json", b'[{"prompt": "a"}] {}', "is not valid JSON"),
        ("p.csv", b"prompt\n", "has no rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_a_cure(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        load_prompts(str(path))
    assert str(path) in str(caught.value)
    assert caught.value.cure
    _check_quiet(caught.value)


def test_empty_tables_are_refused(tmp_path: Path) -> None:
    table = pa.table({"prompt": pa.array([], pa.string())})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(DataError, match="has no rows"):
        load_prompts(str(tmp_path / "p.parquet"))


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.parquet", "gone"])
def test_a_missing_source_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist"):
        load_prompts(str(tmp_path / name))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(DataError, match="is no file but a pipe or a device") as caught:
        load_prompts(str(tmp_path / "p.jsonl"))
    assert "write the prompts into a file" in caught.value.cure


def test_a_directory_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a saved dataset"):
        load_prompts(str(tmp_path))


def test_what_is_no_source_is_answered_by_what_was_probably_meant(tmp_path: Path) -> None:
    """A name of the Hub without hf:, and a folder that holds files of prompts."""
    with pytest.raises(DataError, match="hf:OWNER/NAME"):
        load_prompts("openai/gsm8k")
    (tmp_path / "train-00000.parquet").touch()
    with pytest.raises(DataError, match=r"name one of its files, for example train-00000\.parquet"):
        load_prompts(str(tmp_path))


def test_a_directory_named_like_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").mkdir()
    with pytest.raises(DataError, match="not a saved dataset"):
        load_prompts(str(tmp_path / "p.jsonl"))


def test_a_row_shows_neither_prompt_nor_columns() -> None:
    assert SECRET not in repr(PromptRow(SECRET, {"answer": SECRET}))


def test_a_prompt_for_the_model_is_a_copy() -> None:
    row = PromptRow(tuple(CHAT), {})
    first = row.for_model()
    assert isinstance(first, list)
    first[0]["content"] = "changed"
    assert row.for_model() == CHAT


def test_collated_columns_have_one_value_a_row() -> None:
    rows = [PromptRow("a", {"answer": 1}), PromptRow("b", {"level": "x"}), PromptRow("c")]
    assert collate_columns(rows) == {"answer": [1, None, None], "level": [None, "x", None]}


def _check_quiet(error: BaseException) -> None:
    """No prompt text in the error, and no cause that a traceback would print."""
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = 'prompt,answer\n1+1=,2\n"two\nlines, and a comma",3\n'


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.JSONL", "p.json", "p.json.gz", "P.Jsonl.GZ"])
def test_packed_files_and_any_case_of_their_names_are_read(tmp_path: Path, name: str) -> None:
    text = json.dumps(ROWS) if ".json" in name.removesuffix(".gz")[-5:].lower() else LINES
    packed = gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(packed)
    assert load_prompts(str(tmp_path / name)) == load_prompts(
        str(_jsonl(tmp_path / "o.jsonl", ROWS))
    )


def test_other_endings_of_lines_and_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.NDJSON").write_text(LINES)
    (tmp_path / "p.tsv").write_text("prompt\tanswer, if any\n1,5+1=\t2,5\n")
    assert len(load_prompts(str(tmp_path / "p.NDJSON"))) == len(ROWS)
    (row,) = load_prompts(str(tmp_path / "p.tsv"))
    assert (row.prompt, row.columns) == ("1,5+1=", {"answer, if any": "2,5"})


def test_lines_under_the_ending_json_are_read_as_lines(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(LINES)
    assert [row.number for row in load_prompts(str(tmp_path / "p.json"))] == [1, 2]


def test_a_table_of_text_gives_rows_whose_fields_may_have_commas_and_lines(tmp_path: Path) -> None:
    (tmp_path / "p.CSV").write_text(TABLE, "utf-8-sig")
    first, second = load_prompts(str(tmp_path / "p.CSV"))
    assert (first.prompt, first.columns) == ("1+1=", {"answer": "2"})
    assert (second.prompt, second.number) == ("two\nlines, and a comma", 2)


@pytest.mark.parametrize("between", [";", "\t"])
def test_a_table_of_text_may_have_what_spreadsheets_write_between_fields(
    tmp_path: Path, between: str
) -> None:
    lines = ["prompt,answer", "1+1=,2", '"1,5+1=","2,5"']
    text = "\n".join(lines).replace(",", between).replace(f'1{between}5+1="', '1,5+1="')
    (tmp_path / "p.csv").write_text(text.replace(f'"2{between}5"', '"2,5"'))
    rows = load_prompts(str(tmp_path / "p.csv"))
    assert [(row.prompt, row.columns["answer"]) for row in rows] == [
        ("1+1=", "2"),
        ("1,5+1=", "2,5"),
    ]


def test_a_table_of_which_one_column_would_hide_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,answer,answer\n1+1=,2,3\n")
    with pytest.raises(DataError, match="2 columns of the name 'answer'"):
        load_prompts(str(tmp_path / "p.csv"))


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.json", "p.json.gz"])
def test_a_node_refuses_files_of_which_one_row_could_cost_the_others(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="row by row"):
        usable_prompts(Source(str(tmp_path / name)), RowLimit(100))


def test_columns_get_the_names_that_are_asked_for(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "p.jsonl", [{"question": "1+1=", "solution": "2", "level": 3}])
    (row,) = load_prompts(Source(str(path), columns={"prompt": "question", "answer": "solution"}))
    assert (row.prompt, row.columns) == ("1+1=", {"answer": "2", "level": 3})


def test_two_columns_may_change_their_names_with_each_other(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "p.jsonl", [{"prompt": "no", "question": "yes"}])
    (row,) = load_prompts(Source(str(path), columns={"prompt": "question", "note": "prompt"}))
    assert (row.prompt, row.columns) == ("yes", {"note": "no"})


@pytest.mark.parametrize("columns", [{}, {"prompt": "text"}])
def test_a_column_that_does_not_exist_is_answered_by_those_that_do(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    path = _jsonl(tmp_path / "p.jsonl", [{"question": SECRET, "answer": SECRET}])
    with pytest.raises(DataError, match=r"'question', 'answer'(.|\n)*data\.columns") as caught:
        load_prompts(Source(str(path), columns=columns))
    _check_quiet(caught.value)


def test_a_system_prompt_begins_every_chat_that_has_none(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "1+1="}]
    path = _jsonl(tmp_path / "p.jsonl", [{"prompt": "1+1="}, {"prompt": CHAT[1:]}, {"prompt": own}])
    text, chat, kept = load_prompts(Source(str(path), system_prompt="Think."))
    first = {"role": "system", "content": "Think."}
    assert text.for_model() == [first, {"role": "user", "content": "1+1="}]
    assert chat.for_model() == [first, *CHAT[1:]]
    assert kept.for_model() == own
