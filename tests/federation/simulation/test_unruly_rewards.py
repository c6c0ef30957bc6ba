"""Through Flower's own client processes: what a user's reward does costs its row, and no client."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from fedgrpo.federation.simulation.simulate import simulate
from fedgrpo.report.reader import read_rows

pytestmark = [pytest.mark.flower, pytest.mark.soak, pytest.mark.timeout(1200)]

UNRULY = Path(__file__).parents[2] / "rewards" / "apart" / "unruly.py"
KINDS = ("loop", "exit", "crash", "memory", "orphan", "raise", "pool", "tower", "fine")
"""One a client, in one of its rows; the tower of powers is for ``symbolic_match``."""
TOWER = r"\boxed{9^{9^{9^{9}}}}"
SCENARIO = f"""
rounds = 1
[simulation]
clients = {len(KINDS)}
[data]
source = "rows.jsonl"
client_column = "who"
min_prompts = 4
[evaluation]
source = "fine.jsonl"
prompts = 4
[grpo]
prompts_per_step = 4
group_size = 2
max_completion_length = 4
[reward]
functions = ["unruly.py:act", "symbolic_match"]
maximum = 10.0
cpu_s = 6
[robust]
rule = "mean"
trim = 0
[privacy]
max_epsilon = 1e6
"""


def rows_of(client: int) -> list[dict[str, object]]:
    kinds = [KINDS[client], "fine", "fine", "fine"]
    return [
        {
            "prompt": f"{client}+{i}=",
            "answer": TOWER if kind == "tower" else "7",
            "what": kind,
            "who": client,
        }
        for i, kind in enumerate(kinds)
    ]


def simulated(folder: Path, monkeypatch: pytest.MonkeyPatch, unit: str) -> Path:
    """A run of one round through Flower, in which every client takes all of its rows."""
    monkeypatch.chdir(folder)
    rows = [row for client in range(len(KINDS)) for row in rows_of(client)]
    fine = [{"prompt": f"9{i}+1=", "answer": "7", "what": "fine", "who": 0} for i in range(4)]
    for name, these in (("rows", rows), ("fine", fine)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in these))
    (folder / "unruly.py").write_text(UNRULY.read_text())
    (folder / "unruly.toml").write_text(SCENARIO)
    path = simulate(folder / "unruly.toml", overrides={"privacy.unit": unit}, console=Console())
    (row,) = [row for row in read_rows(path) if row.round]
    assert (row.applied, row.finished, row.dropped) == (True, len(KINDS), 0)
    return path


def test_what_a_reward_does_costs_its_group_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = (simulated(tmp_path, monkeypatch, "none") / "flower.log").read_text()
    for problem in (
        "took more than reward.cpu_s = 6 s of CPU time",
        "ended its process",
        "crashed by signal 11",
        "raised MemoryError",
        "raised ValueError",
    ):
        assert problem in log


def test_what_a_reward_does_costs_its_row_alone_under_prompt_level_privacy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = (simulated(tmp_path, monkeypatch, "prompt") / "flower.log").read_text()
    found = re.findall(r"round 1, (\d+) x ", log)
    # A pool cannot be started there; what takes symbolic_match too long is left to the other.
    assert sum(map(int, found)) == sum(kind not in ("tower", "fine") for kind in KINDS)
