"""Names of parts are read without running anything, and refused where they cannot be."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts.names import PartName, absolute_part, brings_code, split_names

LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e9, 1e9)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner),
    max_leaves=6,
)
OPTIONS = st.dictionaries(st.sampled_from(["x", "tau", "a_1"]), LITERALS, max_size=3)


def written(name: str, options: dict[str, object]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


@pytest.mark.slow
@given(st.sampled_from(["sapo", "a.b:f", "/x (1)/my file.py:f"]), OPTIONS)
def test_what_is_written_is_read(name: str, options: dict[str, object]) -> None:
    place, _, own = name.rpartition(":")
    read = PartName.read(written(name, options), "grpo.loss")
    assert (read.place, read.name, read.options) == (place or None, own, options)
    assert PartName.read(name, "grpo.loss").options == {}


@pytest.mark.parametrize(
    "text",
    [
        "f(1)", "f(x)", "f(x=y)", "f(x=1", "f(x=1)(y=2)", "f(**{})", "f(x=open('a'))", "f(x=1e999)",
        "f(x=1e10)", "f(x=b'a')", "f(x={})", "f(x=1, x=2)", "f(x=1) if f else g", "f(x=1j)",
        "f)", "f(x=" + "[" * 900 + "]" * 900 + ")", "f" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_name_with_literals_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"grpo.loss = (.|\n)* cannot be read"):
        PartName.read(text, "grpo.loss")


@pytest.mark.parametrize("text", ["a:f", ":f", "a.py:f", "a.py:f(x=1)", "a(1).py:f", "x:" * 2000])
def test_what_would_load_a_module_or_file_is_known(text: str) -> None:
    assert brings_code(text)


@pytest.mark.parametrize("text", ["sapo", "sapo(x=1)", "sapo(x='a:b(c)')", "a.py", ""])
def test_what_is_built_in_loads_nothing(text: str) -> None:
    assert not brings_code(text)


@given(st.text(max_size=60))
def test_a_name_that_loads_code_is_never_taken_for_a_built_in_one(text: str) -> None:
    try:
        place = PartName.read(text, "grpo.loss").place
    except SettingsError:
        return
    assert brings_code(text) == (place is not None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, b", ("a", "b")),
        ("a(x=1, y=2), b.py:f(x='), ')", ("a(x=1, y=2)", "b.py:f(x='), ')")),
        ("a(x=(1, 2)),,b ", ("a(x=(1, 2))", "b")),
        ("it's, fine", ("it's", "fine")),
        ("", ()),
    ],
)
def test_commas_within_options_separate_no_names(text: str, names: tuple[str, ...]) -> None:
    assert split_names(text) == names


def test_paths_of_files_become_absolute_and_nothing_else_changes(tmp_path: Path) -> None:
    assert absolute_part("a.py:f(x=1)", tmp_path) == f"{tmp_path}/a.py:f(x=1)"
    for same in ("sapo(x=1)", "a.module:f", f"{tmp_path}/b.py:g"):
        assert absolute_part(same, tmp_path) == same
