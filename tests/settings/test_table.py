"""Tables among the settings travel as one text, and names with commas among lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import join_names, split_names
from fedgrpo.settings import DataSettings, Settings
from fedgrpo.settings.scenario import load_scenario, settings_from

VALUES = st.text(max_size=8) | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9)


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=3))
def test_a_table_survives_flowers_run_configuration(table: dict[str, Any]) -> None:
    settings = Settings.from_mapping({"data": {"chat_template_kwargs": table}})
    flat = settings.to_run_config()
    assert isinstance(flat["data.chat_template_kwargs"], str)
    assert Settings.from_run_config(flat) == settings
    assert settings.data.template_kwargs() == table


@pytest.mark.parametrize(
    "written",
    [
        {"prompt": "question", "answer": "solution"},
        "prompt=question, answer=solution",
        'answer = "solution", prompt = "question"',
        '{"prompt": "question", "answer": "solution"}',
    ],
)
def test_every_way_to_write_a_table_is_the_same_run(written: Any) -> None:
    settings = Settings.from_mapping({"data": {"columns": written}})
    assert settings.data.column_names() == {"prompt": "question", "answer": "solution"}
    plain = Settings.from_mapping(
        {"data": {"columns": {"answer": "solution", "prompt": "question"}}}
    )
    assert settings.fingerprint() == plain.fingerprint()


def test_the_command_line_names_one_column_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('[data]\ncolumns = {prompt = "question"}\n')
    given = {"data.columns.answer": "solution", "data.chat_template_kwargs.think": False}
    settings = load_scenario(tmp_path / "s.toml", given, tmp_path)
    assert settings.data.column_names() == {"prompt": "question", "answer": "solution"}
    assert settings.data.template_kwargs() == {"think": False}


@pytest.mark.parametrize("written", ["prompt", "=question", "{", "[1]", {"a": 1e400}, ["x"], 7])
def test_what_is_no_table_is_refused_by_its_key(written: Any) -> None:
    with pytest.raises(SettingsError, match=r"data\.columns"):
        Settings.from_mapping({"data": {"columns": written}})


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"columns": {"prompt": 7}}, "'prompt' the name 7"),
        ({"today": "tomorrow"}, "data.today"),
        ({"system_prompt": "Think."}, "built-in tasks"),
    ],
)
def test_settings_of_data_that_cannot_be_are_refused(tree: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        Settings.from_mapping({"data": tree})


def test_a_templates_file_travels_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "my.jinja").write_text("{{ messages }}", "utf-8-sig")
    settings = settings_from({"data": {"chat_template": "my.jinja"}}, tmp_path)
    assert settings.data.chat_template == "{{ messages }}"
    assert settings_from({"data.chat_template": "rag"}, tmp_path).data.chat_template == "rag"
    (tmp_path / "empty.jinja").write_text("\n")
    with pytest.raises(SettingsError, match=r"'empty\.jinja' holds no template"):
        settings_from({"data": {"chat_template": "empty.jinja"}}, tmp_path)
    with pytest.raises(SettingsError, match=r"gone\.jinja"):
        settings_from({"data.chat_template": "gone.jinja"}, tmp_path)


NAMES = st.lists(
    st.text(st.sampled_from("ab/, .é"), min_size=1, max_size=8)
    .map(str.strip)
    .filter(lambda name: name.strip(", ") and not name.startswith(",")),
    max_size=4,
)


@given(NAMES)
def test_names_with_commas_survive_being_one_text(names: list[str]) -> None:
    assert split_names(join_names(names)) == tuple(names)


def test_a_folder_may_have_a_comma(tmp_path: Path) -> None:
    home = tmp_path / "a, b"
    home.mkdir()
    tree = {"reward.functions": ["r.py:f(x=[1, 2])", "exact_match"], "data.source": "p.jsonl"}
    settings = settings_from(tree, home)
    assert settings.reward.functions == (f"{home}/r.py:f(x=[1, 2])", "exact_match")
    assert Settings.from_run_config(settings.to_run_config()) == settings


def test_defaults_of_data_say_nothing() -> None:
    assert DataSettings().column_names() == {}
