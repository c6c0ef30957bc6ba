"""Trackers: the names that TRL's users know, a missing library named before the start, no node."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedgrpo.ground.errors import SettingsError
from fedgrpo.report.trackers import NEEDS, TRACKERS, Tracked, check_trackers, figures, tracking
from fedgrpo.settings import Settings
from tests.report.alone import FUNCTIONS, step
from tests.report.runs import round_row
from tests.rooms import graph

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
    monkeypatch.setattr("fedgrpo.report.trackers.find_spec", lambda library: None)
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


def test_tensorboard_keeps_what_it_was_told(run: Tracked) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tracking(["tensorboard"], run) as (tracker,):
        tracker.on_round(step(10))
        tracker.on_round(step(20))
    kept = events.EventAccumulator(str(run.directory / "tensorboard"))
    kept.Reload()
    told = kept.Tensors("train/reward")
    assert [event.step for event in told] == [10, 20]
    assert [event.tensor_proto.float_val[0] for event in told] == pytest.approx([0.3, 0.4])
    assert "eval/reward" in kept.Tags()["tensors"]


def test_trackio_keeps_what_it_was_told(
    run: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    trackio = pytest.importorskip("trackio")
    with tracking(["trackio"], run) as (tracker,):
        tracker.on_round(step(10))
    (found,) = trackio.Api().runs("fedgrpo")
    assert found.name == "demo"


def test_no_node_reaches_a_tracker() -> None:
    """What a node measures stays on it: nothing that a node runs tells a tracker."""
    told = {name for name, others in graph().items() if "fedgrpo.report.trackers" in others}
    assert told == {
        "fedgrpo.standalone.training",
        "fedgrpo.federation.server.app",
        "fedgrpo.federation.simulation.preflight",
    }
