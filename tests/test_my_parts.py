"""Parts from a user's own file, in a federation: through the command, and in one process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.server.evaluator import local_evaluator
from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.ground.errors import FedGRPOError
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import load_scenario

ROOT = Path(__file__).parents[1]
SCENARIO = ROOT / "examples" / "my_parts.toml"
PROMPT = {"privacy.unit": "prompt", "privacy.max_epsilon": 1e6, "grpo.credit": "group",
          "grpo.guidance": "none", "grpo.engine": "own"}  # fmt: skip


def example(**changed: object) -> Settings:
    overrides = {key.replace("__", "."): value for key, value in changed.items()}
    return load_scenario(SCENARIO, {"rounds": 1, **overrides}, ROOT)


def played(settings: Settings) -> FedGRPO:
    """A federation of these settings in this process."""
    grid = LocalGrid(make_client_app(), 9, run_config=settings.to_run_config())
    strategy = FedGRPO(settings)
    strategy.start(grid, write_adapter(local_evaluator(settings).initial()))
    return strategy


def test_a_scenario_fills_in_a_preset_of_a_file_and_makes_every_path_absolute() -> None:
    flat = example().to_run_config()
    file = ROOT / "examples" / "my_parts.py"
    assert flat["grpo.preset"] == ""
    assert flat["grpo.advantage"] == f"{file}:best_of_group(sharpness=2.0)"
    assert flat["grpo.loss"] == f"{file}:leaky_clip(width=0.3)"
    assert flat["privacy.metrics"] == f"reward, kl, {file}:characters(most=8)"
    assert flat["data.tasks"] == f'add, {file}:count_letters(letters="xyz")'
    assert str(flat).count("'examples/") == str(flat).count('"examples/') == 0
    assert Settings.from_run_config(flat) == example()


@pytest.mark.slow
@pytest.mark.parametrize("unit", [{}, PROMPT])
def test_a_federation_of_a_users_parts_trains_in_one_process(unit: dict[str, object]) -> None:
    settings = example(**unit)
    preflight(settings)
    state = played(settings).state
    assert state is not None
    # The optimiser of the file takes steps of one size.
    assert np.unique(np.abs(state.adapter.vector[state.adapter.vector != 0])).size == 1


@pytest.mark.flower
@pytest.mark.timeout(900)
def test_a_federation_of_a_users_parts_is_simulated(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    command = [sys.executable, "-m", "fedgrpo.cli.app", "simulate"]
    done = subprocess.run(
        [*command, "examples/my_parts.toml", "--set", "rounds=1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "runs" / "my_parts" / "summary.json").read_text())
    assert summary["rounds"] == 1
    last = json.loads((tmp_path / "runs/my_parts/metrics.jsonl").read_text().splitlines()[-1])
    assert list(last["metrics"]) == ["reward", "metrics/characters(most=8)"]
    assert 0 < last["metrics"]["metrics/characters(most=8)"] <= 8
    assert summary["robust"]["rule"].endswith("my_parts.py:multi_krum(keep=2)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "name", "problem", "cure"),
    [
        ("grpo.loss", "sapo(sharp=1)", "there is no option 'sharp'", "positive, negative"),
        ("grpo.loss", "sapo(positive='a')", "valid number", "correct positive"),
        ("grpo.loss", "FILE:leeky_clip", "has no 'leeky_clip'", "check the function's name"),
        ("grpo.loss", "FILE:multi_krum", "declared for robust.rule", "name another"),
        ("grpo.loss", "none.py:f", "none.py does not exist", "check the path"),
        ("grpo.advantage", "no_such_module:f", "not installed", "name its file"),
        ("grpo.credit", "FILE:DiscountedCredit(discount=None)", "valid number", "correct"),
        ("grpo.guidance", "FILE:CountedSamples(x=1)", "there is no option 'x'", "takes none"),
        ("robust.rule", "FILE:multi_krum(2)", "cannot be read", "name(option=value"),
        ("robust.rule", "FILE:multi_krum(keep=1.5)", "valid integer", "correct keep"),
        ("server.optimiser", "FILE:sign_step(decay=1e300)", "cannot be read", "up to 1e+09"),
        ("simulation.attack", "FILE:little_is_enough(z=)", "cannot be read", "name(option"),
        ("data.tasks", "FILE:count_letters(longest=True)", "valid integer", "correct longest"),
        ("reward.functions", "FILE:Short(shortest=1)", "no option 'shortest'", "longest"),
        ("privacy.metrics", "FILE:characters(least=1)", "no option 'least'", "choose from most"),
        ("privacy.metrics", "FILE:characters(most=0.5)", "valid integer", "correct most"),
        ("privacy.metrics", "FILE:leaky_clip", "declared for grpo.loss", "name another"),
        ("privacy.metrics", "lenght", "is unknown", "or name your own"),
        ("grpo.preset", "FILE:theirs", "has no 'theirs'", "check the function's name"),
        ("grpo.preset", "FILE:leaky_clip", "declared for grpo.loss", "name another"),
    ],
)
def test_what_cannot_be_found_or_used_is_refused_before_anything_starts(
    key: str, name: str, problem: str, cure: str
) -> None:
    text = name.replace("FILE", "examples/my_parts.py")
    with pytest.raises(FedGRPOError) as caught:
        preflight(example(**{"grpo.preset": "grpo", "reward.weights": "", key: text}))
    assert key in caught.value.problem
    assert problem in caught.value.problem
    assert cure in caught.value.cure


@pytest.mark.slow
def test_a_part_that_declares_nothing_is_refused_under_prompt_level_privacy(
    tmp_path: Path,
) -> None:
    (tmp_path / "silent.py").write_text("def f(batch):\n    return batch\n")
    settings = example(**PROMPT, **{"grpo.loss": f"{tmp_path}/silent.py:f"})
    with pytest.raises(FedGRPOError, match="declares nothing") as caught:
        preflight(settings)
    assert "batch_wide=False" in caught.value.cure


def test_settings_that_travel_name_no_preset_of_a_file(tmp_path: Path) -> None:
    mark, evil = tmp_path / "ran", tmp_path / "evil.py"
    evil.write_text(f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(FedGRPOError, match="from a scenario only"):
        Settings.from_run_config({"grpo.preset": f"{evil}:f"})
    assert not mark.exists()
