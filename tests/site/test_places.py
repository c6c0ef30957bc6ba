"""A run's names stand for places of the site's own, and for files that are as they were read."""

from __future__ import annotations

import hashlib
import json

import pytest

from fedgrpo.ground.errors import ModelError, RewardError
from fedgrpo.settings import Settings
from fedgrpo.site import Policy, Refusal
from fedgrpo.site.checked import broken_files, check_reward_files
from fedgrpo.site.places import (
    at_home,
    check_model_places,
    own_names,
    reward_file,
    reward_key,
)

RUN = Settings.from_mapping(
    {
        "model": {"name": "lab/model", "revision": "abc"},
        "reward": {"functions": ["exact_match", "rewards.py:correct(strict=True)", "lab.pkg:f"]},
    }
)


def config(**tables):
    return {name: json.dumps(value) for name, value in tables.items()}


def test_without_places_nothing_is_another():
    assert at_home(RUN, {"prompts": "x"}) is RUN
    assert at_home(RUN, config(models={"other/model": "/m"})) is RUN


@pytest.mark.parametrize("name", ["lab/model", "lab/model@abc"])
def test_a_model_is_loaded_from_the_sites_folder_whatever_its_revision(name):
    home = at_home(RUN, config(models={name: "/models/lab"}))
    assert (home.model.name, home.model.revision) == ("/models/lab", "")
    assert home.reward == RUN.reward
    other = at_home(RUN, config(models={"lab/model@def": "/models/lab"}))
    assert other is RUN, "another revision is another model"


def test_a_device_is_the_sites_own():
    home = at_home(RUN, {"device": "cuda:1"})
    assert home.model == RUN.model.model_copy(update={"device": "cuda:1"})


def test_a_rewards_file_is_the_sites_and_its_options_the_runs():
    places = config(rewards={"rewards.py:correct": "/opt/fedgrpo/own.py"})
    assert at_home(RUN, places).reward.functions == (
        "exact_match",
        "/opt/fedgrpo/own.py:correct(strict=True)",
        "lab.pkg:f",
    )
    assert own_names(("rewards.py:correct", "x.py:correct"), places) == (
        "/opt/fedgrpo/own.py:correct",
        "x.py:correct",
    )
    assert str(reward_file("rewards.py:correct(strict=True)", places)) == "/opt/fedgrpo/own.py"
    assert reward_file("lab.pkg:f", places) is None
    assert reward_file("exact_match", places) is None


def test_keys_of_rewards_have_no_options():
    keys = [reward_key(name) for name in RUN.reward.functions]
    assert keys == ["", "rewards.py:correct", "lab.pkg:f"]


@pytest.fixture
def file(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def correct(completions, **_):\n    return [1.0] * len(completions)\n")
    return own


def policy(file, **changed):
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    return Policy(reward_hashes={"rewards.py:correct": found} | changed)


def test_a_file_that_has_changed_since_it_was_read_refuses_the_run(file):
    places, read = config(rewards={"rewards.py:correct": str(file)}), policy(file)
    assert not [*broken_files(read, RUN, places)]
    check_reward_files(places, read)
    file.write_text(file.read_text() + "# changed\n")
    ((code, problem),) = broken_files(read, RUN, places)
    assert code is Refusal.REWARD
    assert str(file) in problem
    with pytest.raises(RewardError, match="is not as it was read"):
        check_reward_files(places, read)
    file.unlink()
    assert [code for code, _ in broken_files(read, RUN, places)] == [Refusal.REWARD]


def test_a_hash_is_of_a_file_and_a_module_has_none(file):
    module = policy(file, **{"lab.pkg:f": "0" * 64})
    places = config(rewards={"rewards.py:correct": str(file)})
    assert [problem for _, problem in broken_files(module, RUN, places)] == [
        f"reward function 'lab.pkg:f': it has no file here, and {'0' * 64} is allowed"
    ]


def test_a_file_without_a_hash_may_change(file):
    places = config(rewards={"rewards.py:correct": str(file)})
    assert not [*broken_files(Policy(), RUN, places)]


def test_places_that_are_none_stop_the_start(tmp_path):
    with pytest.raises(ModelError, match=r"models in site\.toml: /no/where"):
        check_model_places(config(models={"lab/model": "/no/where"}))
    check_model_places(config(models={"lab/model": str(tmp_path)}))
    with pytest.raises(RewardError, match=r"rewards in site\.toml: /no/where\.py"):
        check_reward_files(config(rewards={"rewards.py:f": "/no/where.py"}), None)


def test_a_hash_that_is_none_is_refused():
    with pytest.raises(ValueError, match="reward_hashes"):
        Policy(reward_hashes={"rewards.py:f": "abc"})
