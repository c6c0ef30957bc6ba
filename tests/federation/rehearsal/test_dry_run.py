"""A dry run: nothing is written, sent or quoted, and what it foretells comes true."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.data.survey import Survey, survey_rows
from fedgrpo.federation import FedGRPO, make_client_app
from fedgrpo.federation.node.clients.prompt_client import own_shapes
from fedgrpo.federation.rehearsal import dry_run as module
from fedgrpo.federation.rehearsal.dry_run import Measured, dry_run
from fedgrpo.federation.rehearsal.traffic import CountingGrid
from fedgrpo.federation.server.evaluator import local_evaluator
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.ground.errors import DataError
from fedgrpo.grpo.isolated.engine import Engine
from fedgrpo.model.lora import Adapter
from fedgrpo.report.console.dry_run import print_dry_run
from fedgrpo.settings import AdapterSettings, Settings
from fedgrpo.settings.scenario import load_scenario
from tests.models import rows, tiny_base

pytestmark = pytest.mark.slow

SCENARIO = """
rounds = 2
[data]
prompts_per_client = 60
min_prompts = 60
[grpo]
prompts_per_step = 6
group_size = 4
[privacy]
unit = "prompt"
max_epsilon = 1e6
[simulation]
clients = 9
[evaluation]
prompts = 5
"""
SECRETS = ("sort 31245=", "rev abcdef=", "max 3,14,15=", "17+25=")


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    return path


def prompts(folder: Path, *extra: object) -> str:
    rows = [{"prompt": text, "answer": "12345"} for text in SECRETS * 15]
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *extra]))
    return str(path)


def printed(scenario: Path, **options: object) -> str:
    text = io.StringIO()
    found = dry_run(scenario, **options)  # type: ignore[arg-type]
    print_dry_run(found, Console(file=text, width=160))
    return text.getvalue()


AUDITED = """
import os, sys
touched = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        # A number is a descriptor that is open already.
        named = isinstance(path, str) and isinstance(flags, int)
        changes = named and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        path = str(arguments[0])
        changes = event in ("os.mkdir", "os.rename", "os.remove") or event.startswith("socket.con")
    # A descriptor (a pipe to a child) is a file that is open already.
    new = not isinstance(path, int) and path != os.devnull
    if changes and new and not str(path).startswith(os.environ["TMPDIR"]):
        touched.append((event, str(path)))
sys.addaudithook(watch)
from fedgrpo.cli.app import app
app(["dry-run", "mine.toml", "--prompts", "mine.jsonl", "--json"], standalone_mode=False)
print(touched, file=sys.stderr)
"""


def test_nothing_is_written_and_nothing_leaves_the_machine(
    scenario: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Libraries try out the folder for temporary files as they are loaded, and leave none there."""
    prompts(scenario.parent)
    temporary = tmp_path_factory.mktemp("temporary")
    before = sorted(scenario.parent.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-B", "-c", AUDITED],
        capture_output=True, text=True, timeout=200, check=False,
        env=os.environ
        | {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(temporary / "inductor")}
        | {"HOME": str(scenario.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    assert sorted(scenario.parent.rglob("*")) == before
    assert not [path for path in temporary.rglob("*") if path.is_file()]
    assert json.loads(done.stdout)["prompts"] == 60


def test_no_prompt_and_no_completion_is_shown(scenario: Path) -> None:
    mine = prompts(scenario.parent, {"prompt": "x" * 4000, "answer": ""}, {"question": "secret"})
    shown = printed(scenario, prompts=mine)
    result = CliRunner().invoke(app, ["dry-run", str(scenario), "--prompts", mine, "--json"])
    assert result.exit_code == 0
    for text in (*SECRETS, "12345", "xxx", "secret"):
        assert text not in shown
        assert text not in result.stdout
    assert "Reward exact_match" in shown


def test_every_reason_for_a_refusal_is_counted(scenario: Path) -> None:
    mine = prompts(
        scenario.parent,
        {"prompt": "9" * 600, "answer": ""},
        {"prompt": "8" * 700, "answer": ""},
        {"question": "?"},
        {"prompt": "", "answer": ""},
    )
    found = dry_run(scenario, prompts=mine)
    assert found.prompts == 64
    assert found.refused == {
        "is longer than grpo.max_prompt_length = 512 tokens": 2,
        "has no prompt; it has 'question'": 1,
        "has an empty prompt": 1,
    }
    assert found.longest < 20
    assert any(warning.startswith("4 rows cannot be used") for warning in found.warnings)


def test_prompts_of_which_none_can_be_used_are_refused(scenario: Path) -> None:
    with pytest.raises(DataError, match="none of 60 prompts can be used"):
        dry_run(scenario, overrides={"grpo.max_prompt_length": 1})


def test_a_node_with_too_few_prompts_is_told_that_it_would_refuse(scenario: Path) -> None:
    found = dry_run(scenario, overrides={"data.min_prompts": 61})
    assert any("fewer than data.min_prompts = 61" in warning for warning in found.warnings)


def test_the_figures_are_those_of_a_sample(scenario: Path) -> None:
    found = dry_run(scenario, sample=4)
    assert (found.prompts, found.sampled_prompts, found.completions) == (60, 4, 16)
    (counted,) = found.rewards.values()
    assert sum(item.count for item in counted.bins) == 16
    assert found.tokens_per_second > 0
    assert found.peak_memory_bytes > 2**20
    assert found.adapter_bytes == 4 * found.dimension


def test_truncated_completions_are_warned_of_at_once(scenario: Path) -> None:
    found = dry_run(scenario, overrides={"grpo.max_completion_length": 1})
    assert found.truncated > 0.9
    assert any("grpo.max_completion_length" in warning for warning in found.warnings)
    assert not any("steps" in warning for warning in found.warnings)


@pytest.mark.parametrize(("unit", "path"), [("prompt", "gradient"), ("none", "update")])
def test_a_round_is_measured_the_way_it_would_go(
    unit: str, path: str, scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    gradients = Engine.gradient_rows

    def watched(*arguments: object) -> object:
        taken.append("gradient")
        return gradients(*arguments)  # type: ignore[arg-type]

    # Shapes are tried once a process, with gradients of made-up completions.
    own_shapes(load_scenario(scenario, {}, scenario.parent), 16)
    monkeypatch.setattr(Engine, "gradient_rows", watched)
    found = dry_run(scenario, overrides={"privacy.unit": unit})
    assert bool(taken) == (path == "gradient")
    assert found.round_s > 0


def test_a_round_costs_its_batches_and_its_updates(scenario: Path) -> None:
    measured = module._measure(*_parts(), 3)
    measured = replace(measured, collecting_s=2.0, judging_s=0.5, figures_s=0.25, update_s=1.0)
    assert measured.sampling_s == 1.5

    def cost(measured: Measured, unit: str, **grpo: int) -> float:
        tree = {"grpo": {"prompts_per_step": 6, **grpo}, "privacy": {"unit": unit}}
        return measured.round_s(Settings.from_mapping(tree))

    assert cost(measured, "prompt") == 2 * (2.0 + 1.0)
    assert cost(measured, "none", steps=4) == 2 * 4 * (2.25 + 1.0)
    # Four steps on two batches of two parts each: every update learns from half a batch.
    assert cost(measured, "none", steps=4, minibatches=2) == 2 * (2 * 2.25 + 4 * 0.5)
    assert cost(measured, "none", steps=3, passes=2) == 2 * (2 * 2.25 + 3 * 1.0)


def test_measuring_puts_the_adapter_back() -> None:
    settings, adapter, survey = _parts()
    before = adapter.vector()
    module._measure(settings, adapter, survey, 3)
    assert np.array_equal(adapter.vector(), before)


def _parts() -> tuple[Settings, Adapter, Survey]:
    tree = {"privacy": {"unit": "none"}, "grpo": {"prompts_per_step": 6}}
    adapter = Adapter(tiny_base(), AdapterSettings())
    return Settings.from_mapping(tree), adapter, survey_rows(rows(8), lambda _: 8, 16)


@pytest.mark.parametrize(
    ("kind", "protocol"), [("ffa_lora", "buckets"), ("lora", "buckets"), ("ffa_lora", "committee")]
)
def test_the_bytes_foretold_are_those_of_a_real_round(
    kind: str, protocol: str, scenario: Path
) -> None:
    changed = {"adapter.kind": kind, "aggregation.protocol": protocol, "privacy.noise": "server"}
    found = dry_run(scenario, overrides=changed)
    tree = {**_tree(scenario), "rounds": 1, "adapter": {"kind": kind}}
    tree["aggregation"] = {"protocol": protocol}
    tree["privacy"] = {**tree.get("privacy", {}), "noise": "server"}  # type: ignore[dict-item]
    settings = Settings.from_mapping(tree)
    grid = CountingGrid(make_client_app(), 9, settings)
    FedGRPO(settings).start(grid, write_adapter(local_evaluator(settings).initial()))
    real = grid.traffic()
    assert found.sent_bytes == pytest.approx(real.sent, rel=0.02)
    assert found.received_bytes == pytest.approx(real.received, rel=0.02)
    assert found.member_sent_bytes == pytest.approx(real.member_sent, rel=0.02)
    assert found.member_received_bytes == pytest.approx(real.member_received, rel=0.02)
    assert (real.member_sent > real.sent) == (protocol == "committee")


def _tree(scenario: Path) -> dict[str, object]:
    return tomllib.loads(scenario.read_text())


def test_json_is_one_line_that_can_be_read_back(scenario: Path) -> None:
    result = CliRunner().invoke(app, ["dry-run", str(scenario), "--json", "--prompts-limit", "3"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["sampled_prompts"] == 3
    assert result.stdout.count("\n") == 1


def test_copies_of_a_text_count_as_one_unit(scenario: Path) -> None:
    found = dry_run(scenario, prompts=prompts(scenario.parent))
    assert any(w.startswith("60 rows are 4 units") for w in found.warnings)
