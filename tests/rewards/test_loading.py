from __future__ import annotations

from pathlib import Path

import pytest

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import REWARDS, exact_match, load_reward

SOURCE = """
from dataclasses import dataclass

@dataclass
class Scale:
    by: float = 2.0

constant = 3

def length(completions, **columns):
    return [Scale().by * len(text) for text in completions]

async def later(completions, **columns):
    return [0.0]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_reward.py"
    path.write_text(SOURCE)
    return path


def test_a_built_in_is_found_by_name() -> None:
    assert load_reward("exact_match") is exact_match
    assert {"exact_match", "numeric_match"} <= set(REWARDS)


def test_a_function_of_an_installed_module_is_found() -> None:
    assert load_reward("fedgrpo.rewards.verifiable.verifiers:exact_match") is exact_match


def test_a_function_of_a_file_is_found(file: Path) -> None:
    assert load_reward(f"{file}:length")(completions=["abc", ""]) == [6.0, 0.0]


def test_a_path_relative_to_the_working_directory_works(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert load_reward("my_reward.py:length")(completions=["a"]) == [2.0]


def test_files_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.py").write_text(f"def f(completions):\n    return [{value}]\n")
    first, second = (load_reward(f"{tmp_path / name / 'r.py'}:f") for name in "ab")
    assert (first(completions=["x"]), second(completions=["x"])) == ([1.0], [2.0])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("exact_mach", r"'exact_mach' is unknown(.|\n)*did you mean exact_match"),
        ("my_reward.py", r"'my_reward.py' is unknown(.|\n)*in that file: my_reward.py:NAME"),
        ("", "'' is unknown"),
        ("no_such_package.rewards:f", "there is no 'no_such_package'"),
        ("fedgrpo.no_such:f", "there is no 'fedgrpo.no_such'"),
        ("fedgrpo.rewards.verifiable.verifiers:gone", "has no 'gone'"),
        ("fedgrpo.rewards.verifiable.verifiers:", "has no ''"),
        ("fedgrpo.rewards.verifiable.verifiers:RELATIVE_TOLERANCE", "is a float"),
        (".rewards:f", "failed to load"),
        (":f", "failed to load"),
        ("gone/reward.py:f", "gone/reward.py does not exist"),
    ],
)
def test_a_name_that_leads_nowhere_is_explained(name: str, problem: str) -> None:
    with pytest.raises(RewardError, match=problem) as caught:
        load_reward(name)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [("gone", "has no 'gone'"), ("constant", "is a int")],
)
def test_something_else_than_a_function_in_a_file_is_refused(
    file: Path, attribute: str, problem: str
) -> None:
    with pytest.raises(RewardError, match=problem):
        load_reward(f"{file}:{attribute}")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise ValueError('secret')", "failed to load .ValueError."),
        ("def f(:", "failed to load .SyntaxError."),
        ("import sys\nsys.exit(1)", "failed to load .SystemExit."),
        ("import no_such_package", r"needs 'no_such_package'(.|\n)*install no_such_package"),
    ],
)
@pytest.mark.parametrize("as_module", [True, False])
def test_code_that_fails_to_load_is_named_with_the_class_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, problem: str, as_module: bool
) -> None:
    module = f"broken_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"{module}:f" if as_module else f"{tmp_path / module}.py:f"
    with pytest.raises(RewardError, match=problem) as caught:
        load_reward(name)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is not None


OPTIONS = """
from dataclasses import dataclass

@dataclass
class Scaled:
    by: float = 1.0

    def __call__(self, completions, **columns):
        return [self.by * len(text) for text in completions]

def padded(completions, answer, *, pad: int = 0, **columns):
    return [float(len(text) + pad) for text in completions]

padded.warm_up = lambda: "warm"
"""


def test_a_class_is_made_of_its_options_and_a_function_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OPTIONS)
    assert load_reward(f"{file}:Scaled(by=3.0)")(completions=["ab"]) == [6.0]
    padded = load_reward(f"{file}:padded(pad=2)")
    # Before a column of the same name, too.
    assert padded(completions=["ab"], answer=["x"], pad=[100]) == [4.0]
    assert padded.warm_up() == "warm"  # type: ignore[attr-defined]
    assert load_reward("self_consistency(min_share=0.9)").min_share == 0.9  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("Scaled(times=3)", "there is no option 'times'"),
        ("Scaled(by='a')", "option by = 'a'"),
        ("padded(pad=1.5)", "option pad = 1.5"),
        ("padded(answer='x')", "there is no option 'answer'"),
    ],
)
def test_options_that_do_not_fit_a_reward_are_refused(
    tmp_path: Path, options: str, problem: str
) -> None:
    (tmp_path / "mine.py").write_text(OPTIONS)
    with pytest.raises(RewardError, match=problem):
        load_reward(f"{tmp_path}/mine.py:{options}")
