"""Run directories: only the same settings resume a run, and nothing is ever written over."""

from pathlib import Path

import pytest

from fedgrpo.ground.errors import RunError
from fedgrpo.report.run_directory import RunDirectory, choose
from fedgrpo.settings import Settings

SETTINGS = Settings()
OTHER = Settings.from_mapping({"rounds": 99})


def pick(
    base: Path, settings: Settings = SETTINGS, run_dir: str | None = None, *, fresh: bool = False
) -> RunDirectory:
    path = None if run_dir is None else Path(run_dir)
    return choose("demo", settings, run_dir=path, fresh=fresh, base=base)


def begin(base: Path, name: str, *, settings: Settings = SETTINGS, finished: bool = False) -> Path:
    path = base / "runs" / name
    with RunDirectory(path, resumes=False).claim(settings):
        (path / "status.json").write_text("{}")
    if finished:
        (path / "summary.json").write_text("{}")
    return path


def test_the_first_run_is_named_after_its_scenario(tmp_path: Path) -> None:
    assert pick(tmp_path) == RunDirectory(tmp_path / "runs" / "demo", resumes=False)


def test_the_settings_name_a_directory_unless_the_command_does(tmp_path: Path) -> None:
    settings = Settings.from_mapping({"run": {"directory": "mine"}})
    assert pick(tmp_path, settings).path == tmp_path / "mine"
    assert pick(tmp_path, settings, "yours").path == tmp_path / "yours"


def test_a_run_directory_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    chosen = choose("s", Settings(), run_dir=Path("~/mine"), fresh=False, base=tmp_path)
    assert chosen.path == tmp_path / "home" / "mine"


def test_the_same_settings_resume_an_unfinished_run(tmp_path: Path) -> None:
    path = begin(tmp_path, "demo")
    assert pick(tmp_path) == RunDirectory(path, resumes=True)
    assert pick(tmp_path, run_dir="runs/demo") == RunDirectory(path, resumes=True)


def test_other_settings_are_refused_and_told_what_differs(tmp_path: Path) -> None:
    begin(tmp_path, "demo")
    for run_dir in (None, "runs/demo"):
        with pytest.raises(RunError, match="rounds = 24 there, 99 here") as caught:
            pick(tmp_path, OTHER, run_dir)
        assert ("--run-dir" if run_dir else "begin demo-2 with --fresh") in caught.value.cure


def test_what_differs_is_told_and_nothing_that_was_only_set_by_somebody_else(
    tmp_path: Path,
) -> None:
    began = Settings.from_mapping({"grpo": {"preset": "grpo"}})
    begin(tmp_path, "demo", settings=began)
    with pytest.raises(RunError) as caught:
        pick(tmp_path, Settings.from_mapping({"rounds": 5, "grpo": {"preset": "grpo"}}))
    assert caught.value.problem.endswith("other settings: rounds = 24 there, 5 here")


def test_a_finished_run_is_left_alone_and_the_next_gets_a_number(tmp_path: Path) -> None:
    begin(tmp_path, "demo", finished=True)
    assert pick(tmp_path).path.name == "demo-2"
    begin(tmp_path, "demo-2", finished=True)
    assert pick(tmp_path, OTHER) == RunDirectory(tmp_path / "runs" / "demo-3", resumes=False)
    with pytest.raises(RunError, match="holds a finished run"):
        pick(tmp_path, run_dir="runs/demo")


def test_fresh_goes_on_to_a_new_directory(tmp_path: Path) -> None:
    begin(tmp_path, "demo")
    assert pick(tmp_path, OTHER, fresh=True) == RunDirectory(
        tmp_path / "runs" / "demo-2", resumes=False
    )
    with pytest.raises(RunError, match="not empty"):
        pick(tmp_path, run_dir="runs/demo", fresh=True)


@pytest.mark.parametrize("snapshot", [None, "{", "7", '{"roundz": 3}'])
def test_a_directory_of_something_else_is_refused(tmp_path: Path, snapshot: str | None) -> None:
    (tmp_path / "thesis.tex").touch()
    if snapshot is not None:
        (tmp_path / "settings.json").write_text(snapshot)
    with pytest.raises(RunError, match="not empty and holds no run"):
        pick(tmp_path, run_dir=".")


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="not empty and holds no run"):
        pick(tmp_path, run_dir="file")


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert not pick(tmp_path, run_dir=".").resumes


def test_only_one_command_writes_to_a_directory(tmp_path: Path) -> None:
    chosen = pick(tmp_path)
    with chosen.claim(SETTINGS):
        with pytest.raises(RunError, match=r"in use by process \d+") as caught:
            chosen.claim(SETTINGS).__enter__()
        assert "--fresh" in caught.value.cure
    with chosen.claim(SETTINGS):
        assert (chosen.path / "settings.json").exists()


def test_an_unfinished_run_of_another_command_is_not_continued(tmp_path: Path) -> None:
    begin(tmp_path, "demo")
    with pytest.raises(RunError, match="unfinished run of fedgrpo simulate") as caught:
        choose("demo", SETTINGS, run_dir=None, fresh=False, base=tmp_path, command="train")
    assert "begin demo-2 with --fresh" in caught.value.cure
    other = RunDirectory(tmp_path / "runs" / "demo-2", resumes=False, command="train")
    with other.claim(SETTINGS):
        pass
    found = choose("demo", SETTINGS, run_dir=None, fresh=False, base=tmp_path, command="train")
    assert found == RunDirectory(other.path, resumes=True, command="train")


MACHINE = {
    "federation": {"wait_s": 7.0},
    "simulation": {"clients": 77},
    "reward": {"timeout_s": 7.0, "cpu_s": 7},
    "grpo": {"tokens_per_batch": 777, "memory_gb": 7.0},
    "data": {"max_failing": 0.7},
}


@pytest.mark.parametrize("changed", [{name: tree} for name, tree in MACHINE.items()])
def test_training_goes_on_under_settings_that_do_not_decide_it(
    tmp_path: Path, changed: dict[str, dict[str, object]]
) -> None:
    """What errors on the way advise to change, and what training alone never reads."""
    path = tmp_path / "runs" / "demo"
    with RunDirectory(path, resumes=False, command="train").claim(
        Settings.from_mapping({"privacy": {"unit": "none"}})
    ):
        (path / "status.json").write_text("{}")
    alone = {"privacy": {"unit": "none"}, **changed}
    settings = Settings.from_mapping(alone)
    found = choose("demo", settings, run_dir=None, fresh=False, base=tmp_path, command="train")
    assert found.resumes
    with pytest.raises(RunError, match="other settings: rounds = 24 there, 99 here\\n"):
        choose(
            "demo",
            Settings.from_mapping({"rounds": 99, **alone}),
            run_dir=None,
            fresh=False,
            base=tmp_path,
            command="train",
        )


def test_a_federation_goes_on_under_the_same_settings_alone(tmp_path: Path) -> None:
    begin(tmp_path, "demo")
    with pytest.raises(RunError, match=r"federation\.wait_s = .* there, 7\.0 here"):
        pick(tmp_path, Settings.from_mapping({"federation": {"wait_s": 7.0}}))
