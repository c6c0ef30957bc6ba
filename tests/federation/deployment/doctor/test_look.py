"""Prompts, policy, model, reward and memory, as the site's own people see them beforehand."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.rehearsal.site_look import look_at_site
from fedgrpo.model.base import TINY
from fedgrpo.settings import Settings
from fedgrpo.site.look import Look
from tests.federation.deployment.doctor.surrounded import (
    AGREED,
    SECRET,
    found,
    site_folder,
    write_prompts,
)

NUMBERS = (9, 12, 13, 14, 21)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "site"


def seen(folder, *, rehearse=False, **changed):
    """A site that was looked at, in this process, which has torch already."""
    agreed = folder.parent / "agreed.toml"
    agreed.write_text(AGREED)
    here = Surroundings.of(str(folder / "site.toml"), settings=str(agreed), rehearse=rehearse)
    assert here.settings
    here = replace(here, settings=Settings.from_run_config(here.settings.to_run_config() | changed))
    here.__dict__["looked"] = look_at_site(here.settings, here.config, rehearse=rehearse)
    return here


def test_what_is_right_is_green_and_no_prompt_is_shown(folder):
    site_folder(folder)
    here = seen(folder)
    assert isinstance(here.looked, Look)
    said = {number: found(here, number) for number in NUMBERS}
    assert [list(each) for each in said.values()] == [[""]] * 5, said
    assert "8 rows, 8 units" in said[9][""]
    assert "numbers for 8 prompts" in said[13][""]
    assert "sort" not in json.dumps(said)


def test_prompts_are_read_under_the_names_that_the_site_gives_their_columns(folder):
    with site_folder(folder).open("a") as file:
        file.write('columns = { prompt = "question", answer = "key" }\n')
    rows = [{"question": f"sort {number}21=", "key": f"12{number}"} for number in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = seen(folder)
    said = found(here, 9)
    assert "8 rows, 8 units" in said[""]
    assert "rows-unusable" not in said
    assert "column-lacking" not in said
    assert "numbers for 8 prompts" in found(here, 13)[""]


def test_rows_that_cannot_be_used_are_counted_and_not_quoted(folder):
    site_folder(folder)
    with (folder / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "", "answer": SECRET}) + "\n")
        file.write(json.dumps({"question": SECRET}) + "\n")
    said = found(seen(folder), 9)
    assert "1 rows cannot be used: each has" in said["rows-unusable"]
    assert "have changed since they were checked" in said["prompts-unchecked"]
    assert "fedgrpo policy check" in said["prompts-unchecked"]
    assert SECRET not in str(said)


def test_prompts_that_are_not_there_or_no_rows_at_all(folder):
    site_folder(folder)
    (folder / "prompts.jsonl").write_bytes(b"\x1f\x8b not packed")
    assert "prompts-unchecked" in found(seen(folder), 9)
    (folder / "prompts.jsonl").unlink()
    assert "name a file" in found(seen(folder), 9)["prompts-unreadable"]


def test_a_column_that_the_reward_needs(folder):
    site_folder(folder)
    (folder / "prompts.jsonl").write_text('{"prompt": "sort 21="}\n' * 5)
    said = found(seen(folder), 9)
    assert "needs the column 'answer'" in said["column-lacking"]
    assert "data.columns" in said["column-lacking"]
    assert "4 rows are exact copies" in said["prompts-copies"]
    assert "fewer than the federation's data.min_prompts = 4" in said["units-few"]


def test_more_units_than_are_declared_and_prompts_that_are_too_long(folder):
    site_folder(folder)
    write_prompts(folder / "prompts.jsonl", 60)
    with (folder / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": f"sort {'1' * 90}=", "answer": "1"}) + "\n")
    said = found(seen(folder), 9)
    assert "prompts_declared = 61" in said["units-undeclared"]
    assert "1 rows are longer than 64 tokens" in said["prompts-long"]


def test_a_model_that_is_not_on_this_machine(folder):
    site_folder(folder)
    here = seen(folder, **{"model.name": "/nowhere/model"})
    assert "check the path" in found(here, 12)["model-unusable"]
    assert list(found(here, 14)) == ["after-others"]


def test_a_model_that_brings_code(folder, tmp_path):
    site_folder(folder)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    said = found(seen(folder, **{"model.name": str(tmp_path / "model")}), 12)["model-unusable"]
    assert "auto_map" in said
    assert "code of a model is never run" in said


def test_a_gpu_that_the_sites_own_file_asks_for_and_that_is_not_there(folder):
    site_folder(folder, device="cuda:99")
    assert "device = 'auto' in site.toml" in found(seen(folder), 14)["gpu-missing"]


def test_model_and_reward_that_lie_at_the_site_alone(folder, tmp_path):
    """The run's names lead nowhere here; what the policy allows is named as the run names it."""
    file = site_folder(folder)
    shutil.copytree(TINY, tmp_path / "model")
    own = tmp_path / "own.py"
    own.write_text("def right(completions, **_):\n    return [1.0] * len(completions)\n")
    with file.open("a") as more:
        more.write(f'models = {{ "lab/model" = {json.dumps(str(tmp_path / "model"))} }}\n')
        more.write(f'rewards = {{ "theirs.py:right" = {json.dumps(str(own))} }}\n')
    known = hashlib.sha256(own.read_bytes()).hexdigest()
    policy = (folder / "policy.toml").read_text().replace('["tiny"]', '["lab/model"]')
    policy = policy.replace('["exact_match"]', '["theirs.py:right"]')
    policy += f'[reward_hashes]\n"theirs.py:right" = "{known}"\n'
    (folder / "policy.toml").write_text(policy)
    theirs = {"model.name": "lab/model", "reward.functions": "theirs.py:right"}
    here = seen(folder, **theirs)
    assert [list(found(here, number)) for number in (10, 12, 13, 14)] == [[""]] * 4
    assert "numbers for 8 prompts" in found(here, 13)[""]
    own.write_text(own.read_text() + "# changed\n")
    here = seen(folder, **theirs)
    assert "has SHA-256" in found(here, 10)["policy-forbids"]
    assert list(found(here, 13)) == ["reward-unread"], "it was not run"


REWARDS = """
def broken(completions, answer, **columns):
    raise KeyError(answer[0])


def touching(completions, **columns):
    open({touched!r}, "w").close()
    return [0.0] * len(completions)
"""


@pytest.fixture
def rewards(folder, tmp_path):
    """A file of rewards, and one that tells whether it ran."""
    site_folder(folder)
    file = tmp_path / "rewards.py"
    file.write_text(REWARDS.replace("{touched!r}", repr(str(tmp_path / "touched"))))
    return file


def allow(folder, name, *, vouch=False):
    policy = (folder / "policy.toml").read_text().replace('["exact_match"]', f'["{name}"]')
    line = f'stateless_rewards = ["{name}"]\n' if vouch else ""
    (folder / "policy.toml").write_text(line + policy)


def test_a_reward_that_fails_is_named_without_a_text(folder, rewards):
    name = f"{rewards}:broken"
    allow(folder, name, vouch=True)
    said = found(seen(folder, **{"reward.functions": name}), 13)["reward-broken"]
    assert "broken" in said
    assert "KeyError" in said
    assert "121" not in said


def test_a_reward_that_cannot_be_found(folder, rewards):
    name = f"{rewards}:absent"
    allow(folder, name)
    assert "absent" in found(seen(folder, **{"reward.functions": name}), 13)["reward-broken"]


def test_code_that_nobody_here_allows_is_not_run(folder, rewards, tmp_path):
    name = f"{rewards}:touching"
    said = found(seen(folder, **{"reward.functions": name}), 13)
    assert "rewards = [...]" in said["reward-unread"]
    assert not (tmp_path / "touched").exists()


def test_a_round_that_does_not_fit_into_memory(folder):
    site_folder(folder)
    here = seen(folder, **{"grpo.max_completion_length": 200_000, "grpo.group_size": 64})
    said = found(here, 14)["memory-short"]
    assert "GiB are free" in said
    assert "lower grpo" in said


def test_a_gpu_that_is_not_there(folder):
    site_folder(folder)
    here = seen(folder, **{"model.device": "cuda:17"})
    assert "set model.device = 'auto'" in found(here, 14)["gpu-missing"]
    assert list(found(here, 12)) == ["after-others"]


@pytest.mark.slow
def test_a_rehearsed_round_without_any_signal_or_time(folder, tmp_path):
    site_folder(folder)
    (tmp_path / "same.py").write_text(
        "def same(completions, **_):\n    return [0.5] * len(completions)\n"
    )
    name = f"{tmp_path / 'same.py'}:same"
    allow(folder, name, vouch=True)
    policy = (folder / "policy.toml").read_text().replace("600.0", "2.5")
    (folder / "policy.toml").write_text(policy)
    said = found(seen(folder, rehearse=True, **{"reward.functions": name}), 21)
    assert "100 % of the groups" in said["no-signal"]
    assert "answer_after_s is 2.5" in said["round-long"]
