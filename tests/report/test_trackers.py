"""Trackers: the names that TRL's users know, a missing library named before the start, no node."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.run_files import TRACKED
from fedgrpo.report.reader import read_rows
from fedgrpo.report.trackers import NEEDS, TRACKERS, Tracked, check_trackers, figures, tracking
from fedgrpo.settings import Settings
from tests.report.alone import FUNCTIONS, step
from tests.report.kept import kept_by, use_folder
from tests.report.runs import round_row
from tests.rooms import graph
from tests.scenarios import write_small
from tests.standalone.scenario import VARIED

OTHER = """
from fedgrpo.report.trackers import Tracker
class Other(Tracker):
    def __init__(self, run, *, fail=False):
        self.told, self.fail, self.closed = [], fail, False
    def log(self, figures, step):
        self.told.append((step, figures))
    def close(self):
        self.closed = True
        if self.fail:
            raise OSError("the tracker's server is gone")
"""
CLOSED = """
class Closed:
    def __init__(self, run):
        raise ValueError("no key is set: log in first")
"""


@pytest.fixture
def run(tmp_path: Path) -> Tracked:
    return Tracked(tmp_path / "demo", Settings().to_run_config())


@pytest.fixture
def other(tmp_path: Path) -> str:
    (tmp_path / "other.py").write_text(OTHER)
    return f"{tmp_path / 'other.py'}:Other"


def test_figures_of_a_step_have_trls_names() -> None:
    row = replace(
        step(10, clip_low=0.1, grad_norm=2.0, loss=0.5),
        held_out_by={"add": {"sampled": 0.5, "greedy": 0.75}},
    )
    found = figures(row)
    assert found["train/reward"] == pytest.approx(0.3)
    assert found["train/kl"] == pytest.approx(0.1)
    assert found["train/entropy"] == pytest.approx(0.1)
    assert found["train/completions/mean_length"] == 5.0
    assert found["train/completions/clipped_ratio"] == 0.05
    assert found["train/frac_reward_zero_std"] == 0.5
    assert found["train/clip_ratio/low_mean"] == 0.1
    assert found["train/grad_norm"] == 2.0
    assert found["train/step_time"] == 0.5
    assert found[f"train/rewards/{FUNCTIONS[0]}/mean"] == pytest.approx(0.1)
    assert found["eval/reward"] == pytest.approx(0.3)
    assert found["eval/kl"] == pytest.approx(0.2)
    assert found[f"eval/rewards/{FUNCTIONS[0]}/mean"] == pytest.approx(0.3)
    assert found["eval/add/greedy"] == 0.75
    assert not [name for name in found if name.startswith("federation/")]


def test_figures_of_a_round_say_what_is_not_trls() -> None:
    row = replace(round_row(2), bytes={"sent": 7, "received": 9})
    found = figures(row)
    assert found["train/reward"] == pytest.approx(0.3)
    assert found["federation/epsilon"] == 2.5
    assert found["federation/dropped"] == 1.0
    assert found["federation/bytes_sent"] == 7.0
    assert found["phases/train"] == 4.0
    # A round's KL is from the round's own start: under TRL's name it would mislead.
    assert "train/kl" not in found
    assert found["fedgrpo/kl"] == pytest.approx(0.0042)
    assert all(type(value) is float for value in found.values())


def test_a_file_of_ones_own_is_told_and_closed(run: Tracked, other: str) -> None:
    with tracking([other, f"{other}(fail=True)"], run) as trackers:
        for tracker in trackers:
            tracker.on_round(round_row(3))
    assert [tracker.told[0][0] for tracker in trackers] == [3, 3]  # type: ignore[attr-defined]
    assert all(tracker.closed for tracker in trackers)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(NEEDS))
def test_a_missing_library_is_named_with_its_extra_before_the_start(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedgrpo.report.trackers.opening.find_spec", lambda library: None)
    with pytest.raises(SettingsError, match=f"run.report_to = '{name}'") as error:
        check_trackers([name])
    assert f"pip install 'fedgrpo[{name}]'" in error.value.cure
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f"\n{name} = [" in extras


def test_an_unknown_tracker_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="'trackoi' is unknown") as error:
        check_trackers(["trackoi"])
    assert "did you mean trackio?" in error.value.cure
    assert set(TRACKERS) == set(NEEDS)


@pytest.mark.parametrize("name", list(NEEDS))
def test_a_tracker_keeps_what_it_was_told_as_one_run_that_goes_on(
    name: str, run: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_folder(tmp_path, monkeypatch)
    pytest.importorskip(NEEDS[name])
    for at in (10, 20):  # As after a kill: another process goes on.
        with tracking([name], run) as (tracker,):
            tracker.on_round(step(at))
    told = {at: figures(step(at)) for at in (10, 20)}
    kept = kept_by(name, run)
    assert kept.keys() == told[10].keys() | told[20].keys()
    for figure, values in kept.items():
        assert values == pytest.approx(
            {at: row[figure] for at, row in told.items() if figure in row}
        )


def test_a_run_is_another_one_after_its_folder_was_removed(run: Tracked) -> None:
    first = run.id
    assert (run.id, Tracked(run.directory, {}).id) == (first, first)
    (run.directory / TRACKED).unlink()
    assert run.id != first


def test_a_tracker_that_cannot_be_opened_is_told_in_its_own_words(
    run: Tracked, tmp_path: Path
) -> None:
    (tmp_path / "closed.py").write_text(CLOSED)
    name = f"{tmp_path / 'closed.py'}:Closed"
    with (
        pytest.raises(SettingsError, match="cannot be opened: ValueError: no key") as error,
        tracking([name], run),
    ):
        raise AssertionError
    assert "leave it out of run.report_to" in error.value.cure


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "simulate"])
def test_trackers_keep_the_rows_of_a_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_folder(tmp_path, monkeypatch)
    there = [name for name, library in NEEDS.items() if find_spec(library)]
    if not there:
        pytest.skip("no tracker's library is installed")
    write_small(tmp_path, rounds=2)
    (tmp_path / "varied.py").write_text(VARIED)
    called = [sys.executable, "-m", "fedgrpo.cli.app", command, "small.toml"]
    called += ["--in-process"] * (command == "simulate")
    called += ["--set", f"run.report_to={json.dumps(there)}"]
    called += ["--set", "reward.functions=varied.py:varied", "--set", "grpo.overlong_share=0.5"]
    done = subprocess.run(
        called, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = Tracked(tmp_path / "runs" / "small", {})
    told = {row.round: figures(row) for row in read_rows(run.directory)}
    assert len(told) == 3
    for name in there:
        kept = kept_by(name, run)
        for figure in {figure for row in told.values() for figure in row}:
            expected = {at: row[figure] for at, row in told.items() if figure in row}
            assert kept[figure] == pytest.approx(expected), (name, figure)


def test_no_node_reaches_a_tracker() -> None:
    """What a node measures stays on it: nothing that a node runs tells a tracker."""
    told = {name for name, others in graph().items() if "fedgrpo.report.trackers" in others}
    assert told == {
        "fedgrpo.standalone.training",
        "fedgrpo.federation.server.app",
        "fedgrpo.federation.server.checks",
    }
