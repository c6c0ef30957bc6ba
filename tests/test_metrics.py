"""A new metric is a row of the table and a value that is measured: two files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fedgrpo

ROOT = Path(__file__).parents[1]
ROW = """\
    "long": Metric(
        words="how long the answers were",
        label="Long answers",
        meaning="share of the limit",
        panel="learning",
        curve="long answers",
    ),
    "kl": Metric(
"""
MEASURED = """\
            "long": self.rollout.lengths().double().reshape(groups).mean(1).numpy() / 10,
            "truncated": truncated.numpy(),
"""
USED = """
import sys
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

import fedgrpo
from fedgrpo.federation.node.clients.figures import of_groups, of_steps, told_metrics
from fedgrpo.federation.server.round import told
from fedgrpo.ground.records import from_json, to_json
from fedgrpo.privacy.release import ReleasePlan, read_aggregate, release_update
from fedgrpo.report import LiveView, RoundRow, RunWriter
from fedgrpo.report.plots import draw
from fedgrpo.settings import Settings
from fedgrpo.settings.reference import to_markdown
from fedgrpo.site import Policy, explain
from tests.models import tiny_trainer
from tests.report.runs import START, round_row

folder = Path(sys.argv[1])
assert Path(fedgrpo.__file__).is_relative_to(folder)
trainer, settings = tiny_trainer(), Settings()
groups = [trainer.collect([0]).per_prompt(), trainer.collect([1]).per_prompt()]
(step,) = trainer.train(1)
for figures in (of_groups(groups), of_steps([step])):
    plan = ReleasePlan("none", 2, 1.0, 1, 0.0, 0.02)
    sent = release_update(np.ones(2), told_metrics(figures, settings)[0], plan, bytes(32))
    row = round_row(1, metrics=told(settings, read_aggregate(sent, plan).metrics))
    assert np.isclose(from_json(RoundRow, to_json(row)).metrics["long"], figures["long"][0])
kept = Settings.from_mapping({"privacy": {"metrics": ["reward"]}})
assert np.isnan(told_metrics(figures, kept)[0]).sum() == 4
assert "how long the answers were" in " ".join(explain(Policy(), ()).split())
assert '"long"' in to_markdown()
writer = RunWriter(folder / "run")
writer.row(row)
console = Console(file=StringIO(), width=120)
console.print(LiveView(folder / "run", 2))
assert "Long answers" in console.file.getvalue()
labels = [text for axes in draw([START, row], None).axes
          for text in axes.get_legend_handles_labels()[1]]
assert "long answers" in labels
"""


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), "utf-8")


@pytest.mark.slow
def test_a_new_metric_leaves_is_limited_and_is_shown(tmp_path: Path) -> None:
    package = tmp_path / "fedgrpo"
    shutil.copytree(Path(fedgrpo.__file__).parent, package)
    edit(package / "settings/sections/metrics.py", '    "kl": Metric(\n', ROW)
    measured = '            "truncated": truncated.numpy(),\n'
    edit(package / "grpo/rollout/experience.py", measured, MEASURED)
    command = [sys.executable, "-c", USED, str(tmp_path)]
    paths = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=paths, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
