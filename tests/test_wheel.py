"""The wheel alone, without extras, in an environment of its own: what a user installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

TINY = """
rounds = 1
data = { prompts_per_client = 30, min_prompts = 3 }
grpo = { prompts_per_step = 2, group_size = 4, max_completion_length = 4, overlong_share = 0.1 }
reward = { functions = ["rewards.py:varied"] }
privacy = { unit = "none" }
evaluation = { prompts = 4 }
simulation = { clients = 9 }
"""
VARIED = """
def varied(completions, **_):
    return [hash(text) % 97 / 97 for text in completions]
"""
SWEEP = """
scenario = "tiny.toml"
seeds = [0]
[rows]
mean = { "robust.rule" = "mean" }
[columns]
honest = {}
"""
WITHOUT_EXTRAS = (
    "ledger verify runs/tiny",
    "report runs/tiny",
    "export runs/tiny --merged merged",
    "train tiny.toml --run-dir alone",
    "sweep sweep.toml --processes 1",
    "settings",
    "budget --epsilon 8 --rounds 20 --cohort 50 --trim 5 --dimension 500",
    "calibrate tiny.toml",
    "dry-run tiny.toml",
    "policy explain policy.toml",
    "policy spent policy.toml",
    "committee-key member.key",
    "server init federation --host localhost",
    "sites --server federation",
)
"""Commands that need neither Ray nor an extra."""


@pytest.fixture(scope="module")
def fedgrpo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel. Fetches what the wheel asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("fedgrpo-*.whl")
    venv.create(folder / "venv", with_pip=True)
    own = [folder / "venv" / "bin" / "python", "-m", "pip", "--quiet"]
    subprocess.run([*own, "install", "-c", ROOT / "constraints.txt", wheel], check=True)
    return folder / "venv" / "bin" / "fedgrpo"


def ran(fedgrpo: Path, line: str, cwd: Path) -> str:
    """What the installed command prints."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(fedgrpo), *line.split()]
    done = subprocess.run(
        command, cwd=cwd, env=own, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_without_extras_every_command_but_rays_works_and_a_simulation_says_so(
    fedgrpo: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "rewards.py").write_text(VARIED)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    (tmp_path / "policy.toml").write_text((ROOT / "clients" / "policy.toml").read_text())
    said = ran(fedgrpo, "simulate tiny.toml", tmp_path)
    assert "Ray is not installed" in said
    assert "fedgrpo[simulation]" in said
    assert "round 1/1" in said
    for line in WITHOUT_EXTRAS:
        ran(fedgrpo, line, tmp_path)


def test_every_command_explains_itself(fedgrpo: Path, tmp_path: Path) -> None:
    names = re.findall(r"^│ ([a-z][a-z-]*) ", ran(fedgrpo, "--help", tmp_path), re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert "Usage" in ran(fedgrpo, f"{name} --help", tmp_path)
