import importlib.util
import os
import py_compile
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedgrpo.ground.errors import DataError, RewardError, SettingsError
from fedgrpo.ground.parts import Registry


def shapes() -> Registry[int]:
    registry: Registry[int] = Registry("shape", DataError)
    registry.register("square")(4)
    registry.register("triangle")(3)
    return registry


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="shape = 'circle' is unknown") as caught:
        shapes()["circle"]
    assert "square, triangle" in caught.value.cure
    assert "circle" not in shapes()


def test_a_name_is_registered_once() -> None:
    registry = shapes()
    with pytest.raises(DataError, match="registered twice"):
        registry.register("square")(5)
    assert registry["square"] == 4


@pytest.mark.parametrize("name", ["a:b", "a,b", "a(b)", " ", ""])
def test_names_that_settings_could_not_carry_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="is no name"):
        shapes().register(name)(1)


def test_every_room_refuses_what_it_does_not_know() -> None:
    from fedgrpo.attacks import ATTACKS
    from fedgrpo.data.tasks import TASKS
    from fedgrpo.federation.server.optimisers import OPTIMISERS
    from fedgrpo.grpo.learning.advantages import ADVANTAGES
    from fedgrpo.grpo.learning.losses import LOSSES
    from fedgrpo.rewards import REWARDS
    from fedgrpo.robust.rules import RULES

    for registry in (TASKS, OPTIMISERS, ADVANTAGES, LOSSES, REWARDS, RULES, ATTACKS):
        assert len(registry) >= 2
        with pytest.raises((SettingsError, DataError, RewardError), match=registry.key):
            registry.check("no such thing")


def test_options_are_held_against_the_signature_and_put_in_place() -> None:
    registry: Registry[Callable[..., object]] = Registry("shape")

    @registry.register("box")
    def box(corner: object, sides: tuple[int, ...] = (1,), *, name: str, scale: float = 1.0) -> str:
        return f"{corner} {sides} {name} {scale}"

    assert registry["box(name='a')"]("c") == "c (1,) a 1.0"
    assert registry["box(name='a', sides=(1, 2), scale=2)"]("c") == "c (1, 2) a 2"
    for options, problem in (
        ("", "option 'name' is missing"),
        ("(name='a', corner=1)", "no option 'corner'"),
        ("(name=1)", "option name = 1: "),
        ("(name='a', scale=True)", "option scale = True: "),
        ("(name='a', sides=(1, 'b'))", "option sides = "),
    ):
        with pytest.raises(SettingsError, match=re.escape(problem)):
            registry.check(f"box{options}")


def test_an_option_without_an_annotation_has_its_defaults_type() -> None:
    registry: Registry[Callable[..., object]] = Registry("shape")
    registry.register("line")(lambda length=1.0: length)
    assert registry["line(length=2)"]() == 2
    with pytest.raises(SettingsError, match="option length"):
        registry.check("line(length='long')")


def test_a_definition_that_is_run_again_takes_its_own_place() -> None:
    registry: Registry[Callable[..., object]] = Registry("shape")
    for value in (1, 2):

        def cell(*, value: int = value) -> int:
            return value

        registry.register("cell")(cell)
    assert registry["cell"]() == 2
    assert registry["cell(value=5)"]() == 5


def test_a_file_is_run_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    registry: Registry[Callable[..., object]] = Registry("shape")
    file, runs = tmp_path / "mine.py", tmp_path / "runs"
    for source in ("1", "22"):
        file.write_text(
            f"with open({str(runs)!r}, 'a') as runs:\n    runs.write('.')\n"
            f"def f(*, x=0): return {source} + x\ndef g(): return f"
        )
        assert registry[f"{file}:f"]() == int(source)
        assert registry[f"{file}:f(x=1)"]() == int(source) + 1
        assert registry[f"{file}:g"]() is registry[f"{file}:f"]
    assert runs.read_text() == ".."


def test_what_runs_is_what_a_file_says_and_no_compiled_copy_beside_it(tmp_path: Path) -> None:
    """Python itself takes a copy for the file's own by size and second: hashes of files, by which
    sites allow them, would vouch for another program.
    """
    file, read, other = tmp_path / "part.py", "def f(): return 1\n", "def f(): return 2\n"
    file.write_text(other)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    py_compile.compile(str(file))
    file.write_text(read)
    os.utime(file, ns=times)
    plain = importlib.util.spec_from_file_location("part", file)
    assert plain
    assert plain.loader
    plain.loader.exec_module(module := importlib.util.module_from_spec(plain))
    assert module.f() == 2, "Python is led astray"
    registry: Registry[Callable[..., int]] = Registry("shape", DataError)
    assert registry[f"{file}:f"]() == 1
    copies = [path.stat().st_mtime_ns for path in tmp_path.rglob("*.pyc")]
    (tmp_path / "new.py").write_text(read)
    assert registry[f"{tmp_path / 'new.py'}:f"]() == 1
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("*.pyc")] == copies


def test_a_file_whose_time_was_set_back_has_changed_all_the_same(tmp_path: Path) -> None:
    registry: Registry[Callable[..., int]] = Registry("shape", DataError)
    file = tmp_path / "part.py"
    file.write_text("def f(): return 2\n")
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    assert registry[f"{file}:f"]() == 2
    file.write_text("def f(): return 1\n")
    os.utime(file, ns=times)
    assert registry[f"{file}:f"]() == 1


def test_a_part_of_another_kind_is_refused(tmp_path: Path) -> None:
    from fedgrpo.robust.rules import RULES

    with pytest.raises(SettingsError, match=r"declared for grpo\.loss"):
        RULES.check("fedgrpo.grpo.learning.losses.policy_gradient:sapo")
