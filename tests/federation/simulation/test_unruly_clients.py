"""Through Flower's own processes: whatever one client does, it drops alone and the run ends."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from fedgrpo.federation.simulation import reaper
from fedgrpo.federation.simulation.flower_run import ENDED_LATE, run_in_flower
from fedgrpo.federation.simulation.simulate import simulate
from fedgrpo.federation.wire.app_bundle import stage_app
from fedgrpo.ground.errors import RunFailedError
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.settings.scenario import load_scenario

pytestmark = [pytest.mark.flower, pytest.mark.soak, pytest.mark.timeout(1200)]

UNRULY = Path(__file__).with_name("unruly_clients.py")
SCENARIO = """
rounds = 2
[simulation]
clients = 9
[federation]
min_clients = 6
round_timeout_s = 150.0
reply_timeout_s = 150.0
[robust]
rule = "mean"
trim = 0
[privacy]
unit = "none"
[evaluation]
prompts = 4
"""


def scenario_of(folder: Path, client_app: str, text: str = SCENARIO) -> Path:
    """A scenario beside an app of one's own."""
    app = stage_app(None, folder / "app")
    (app / "clients" / "app.py").write_text(client_app)
    (app / "unruly.toml").write_text(text)
    return app / "unruly.toml"


def test_a_client_that_hangs_or_dies_drops_alone(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, UNRULY.read_text())
    text = io.StringIO()
    path = simulate(scenario, run_dir=tmp_path / "run", console=Console(file=text))
    first, second = (row for row in read_rows(path) if row.round)
    assert (first.applied, first.finished, first.dropped) == (True, 7, 2)
    assert (second.applied, second.finished, second.dropped) == (True, 9, 0)
    assert ENDED_LATE not in text.getvalue()
    assert reaper.processes_of(str(path)) == []


HANGS_AT_ITS_END = """
import time
from flwr.serverapp import ServerApp
from fedgrpo.federation.server.app import _run_dir, serve
from fedgrpo.settings import Settings

app = ServerApp()

@app.main()
def main(grid, context):
    settings = Settings.from_run_config(context.run_config)
    serve(grid, settings, _run_dir(settings, context.run_id))
    time.sleep(600)
"""


def test_what_hangs_after_the_server_has_finished_is_ended_and_said(tmp_path: Path) -> None:
    client_app = UNRULY.read_text().replace("round) == (", "round) == (-")
    settings = load_scenario(scenario_of(tmp_path, client_app), {"rounds": 1}, tmp_path)
    (tmp_path / "app" / "server" / "app.py").write_text(HANGS_AT_ITS_END)
    text, run_dir = io.StringIO(), tmp_path / "run"
    run_dir.mkdir()
    run_in_flower(
        settings, run_dir, near=tmp_path / "app", console=Console(file=text), linger_s=3.0
    )
    assert ENDED_LATE in " ".join(text.getvalue().split())
    summary = read_summary(run_dir)
    assert summary is not None
    assert summary.rounds == 1
    assert time.time() - (run_dir / "summary.json").stat().st_mtime < 60
    assert reaper.processes_of(str(run_dir)) == []


ALL_HANG = UNRULY.read_text().replace("while (self.number, round) == (1, 1)", "while True")


def test_a_run_in_which_every_client_hangs_ends_as_failed(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ALL_HANG, SCENARIO.replace("= 150.0", "= 15.0"))
    with pytest.raises(RunFailedError, match="none of 1 rounds counted"):
        simulate(scenario, overrides={"rounds": 1}, run_dir=tmp_path / "run", console=Console())
    assert reaper.processes_of(str(tmp_path / "run")) == []


FAILS = """
from pathlib import Path
from flwr.serverapp import ServerApp
from fedgrpo.federation.server.app import _run_dir, serve
from fedgrpo.settings import Settings

class Failing:
    def __init__(self, grid):
        self.grid = grid

    def __getattr__(self, name):
        return getattr(self.grid, name)

    def pull_messages(self, ids):
        if Path(MARK).exists():
            raise OSError(28, "No space left on device")
        return self.grid.pull_messages(ids)

app = ServerApp()

@app.main()
def main(grid, context):
    settings = Settings.from_run_config(context.run_config)
    serve(Failing(grid), settings, _run_dir(settings, context.run_id))
"""
"""A server that fails when a client has begun to hang."""


def test_clients_that_hang_do_not_keep_a_run_that_has_failed(tmp_path: Path) -> None:
    """Their messages would expire an hour later."""
    mark, run_dir = str(tmp_path / "mark"), tmp_path / "run"
    client_app = ALL_HANG.replace(" pass", f" open({mark!r}, 'w').close()")
    scenario = scenario_of(tmp_path, client_app, SCENARIO.replace("= 150.0", "= 3600.0"))
    settings = load_scenario(scenario, {"rounds": 1}, tmp_path)
    (tmp_path / "app" / "server" / "app.py").write_text(FAILS.replace("MARK", repr(mark)))
    run_dir.mkdir()
    with pytest.raises(RunFailedError, match="OSError"):
        run_in_flower(settings, run_dir, near=tmp_path / "app", console=Console(), linger_s=3.0)
    assert reaper.processes_of(str(run_dir)) == []
