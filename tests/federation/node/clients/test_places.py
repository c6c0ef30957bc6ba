"""A node trains a run's model from a folder of its own, if that has the run's weights."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.resident import resident
from fedgrpo.federation.node.residence.identity import identity_of
from fedgrpo.ground.errors import AdapterError, ModelError
from fedgrpo.model.base import TINY
from fedgrpo.settings import Settings
from fedgrpo.site import Declared
from tests.federation.deployed import write_prompts

DECLARED = Declared(40, 16, (), 600.0, any_weights=False)
REWARD = "def correct(completions, **_):\n    return [0.5] * len(completions)\n"


@pytest.fixture
def run():
    """A run whose model and reward lie nowhere under the names that it gives them."""
    return Settings.from_mapping(
        {
            "model": {"name": "/of/the/operator/model"},
            "reward": {"functions": ["theirs.py:correct"]},
            "grpo": {"prompts_per_step": 2, "group_size": 2, "max_completion_length": 4},
            "data": {"min_prompts": 40},
        }
    )


@pytest.fixture
def config(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 0)
    shutil.copytree(TINY, tmp_path / "model")
    (tmp_path / "own.py").write_text(REWARD)
    return {
        "prompts": str(tmp_path / "prompts.jsonl"),
        "models": json.dumps({"/of/the/operator/model": str(tmp_path / "model")}),
        "rewards": json.dumps({"theirs.py:correct": str(tmp_path / "own.py")}),
        "threads": 1,
    }


@pytest.mark.slow
def test_the_same_weights_are_taken_and_others_are_not(run, config, tmp_path):
    theirs = run.model_copy(update={"model": run.model.model_copy(update={"name": "tiny"})})
    order = resident(theirs).state()
    assert LocalClients().prepare(run, config, order, DECLARED) > 0
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    save_file({name: 2 * w.contiguous() for name, w in weights.items()}, file, {"format": "pt"})
    other = tmp_path / "other"
    (tmp_path / "model").rename(other)
    moved = config | {"models": json.dumps({"/of/the/operator/model": str(other)})}
    with pytest.raises(AdapterError):
        LocalClients().prepare(run, moved, order, DECLARED)
    with pytest.raises(ModelError, match="does not exist"):
        LocalClients().prepare(run, config, order, DECLARED)


def test_what_is_held_for_later_is_told_apart_by_the_files_of_this_site(run, config, tmp_path):
    first = identity_of(run, config, DECLARED)
    assert identity_of(run, config, DECLARED) == first
    (tmp_path / "own.py").write_text(REWARD + "\n")
    second = identity_of(run, config, DECLARED)
    (tmp_path / "model" / "config.json").touch()
    assert len({first, second, identity_of(run, config, DECLARED)}) == 3
