"""What must be right before a node starts, and that nothing of it can cost a release."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.data.ownership import node_prompts
from fedgrpo.federation.deployment.site.checks import check_site
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.wire.app_bundle import to_toml
from fedgrpo.ground.errors import DataError, PolicyError, RunError
from fedgrpo.settings import Settings
from fedgrpo.site import checked as site
from fedgrpo.site.places import at_home
from tests.federation.deployed import CONFIG, POLICY, check_prompts, write_prompts


@pytest.fixture
def folder(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 0)
    (tmp_path / "policy.toml").write_text(f"answer_after_s = 600.0\n{POLICY}")
    return tmp_path


def check(folder, **more):
    more = {"no_policy": False, "own_app": False} | more
    check_site({"prompts": str(folder / "prompts.jsonl")}, **more)


def test_a_site_with_checked_prompts_may_start(folder):
    check_prompts(folder / "prompts.jsonl")
    check(folder)


def test_prompts_that_were_never_checked_stop_the_start(folder):
    with pytest.raises(DataError, match="never checked") as raised:
        check(folder)
    assert "fedgrpo policy check" in raised.value.cure


def test_prompts_that_have_changed_stop_the_start(folder):
    check_prompts(folder / "prompts.jsonl")
    with (folder / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "one more", "answer": "1"}) + "\n")
    with pytest.raises(DataError, match="changed since"):
        check(folder)


def test_more_units_than_declared_stop_the_start(folder):
    check_prompts(folder / "prompts.jsonl")
    policy = (folder / "policy.toml").read_text().replace("declared = 40", "declared = 20")
    (folder / "policy.toml").write_text(policy)
    with pytest.raises(DataError, match="prompts_declared = 20"):
        check(folder)


def test_a_site_without_a_policy_does_not_start_unless_it_says_so(folder):
    (folder / "policy.toml").unlink()
    with pytest.raises(RunError, match="no policy") as raised:
        check(folder)
    assert "policy.toml" in raised.value.cure
    check(folder, no_policy=True)


def test_no_policy_does_not_excuse_one_that_cannot_be_read(folder):
    (folder / "policy.toml").write_text("largest = [")
    with pytest.raises(PolicyError, match="TOML"):
        check(folder, no_policy=True)


def test_an_account_that_cannot_be_read_stops_the_start(folder):
    check_prompts(folder / "prompts.jsonl")
    (folder / "spent.jsonl").mkdir()
    with pytest.raises(PolicyError, match="spent"):
        check(folder)


def test_a_node_without_prompts_starts_with_an_app_of_the_sites_own_only(folder):
    config = {"policy": str(folder / "policy.toml"), "state": str(folder / "state")}
    with pytest.raises(DataError, match="names no prompts"):
        check_site(config, no_policy=False, own_app=False)
    check_site(config, no_policy=False, own_app=True)


def test_prompts_that_are_not_there_stop_the_start(folder):
    (folder / "prompts.jsonl").unlink()
    with pytest.raises(DataError, match="looked at"):
        check(folder)


def german(folder):
    """The same prompts under other names, and a site file that tells them."""
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    told = [{"frage": row["prompt"], "loesung": row["answer"], "id": 7} for row in rows]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return rows


COLUMNS = {"prompt": "frage", "answer": "loesung"}


def test_a_site_may_call_its_columns_what_it_likes(folder):
    rows = german(folder)
    config = SiteFile.read(site_file(folder, columns=COLUMNS)).node_config
    settings = Settings.from_run_config(CONFIG)
    (folder / "scenario.toml").write_text(to_toml(CONFIG))
    with pytest.raises(DataError, match="never checked") as raised:
        check_site(config, no_policy=False, own_app=False)
    assert "--columns answer=loesung,prompt=frage" in raised.value.cure
    words = [str(folder / name) for name in ("policy.toml", "scenario.toml")]
    words += ["--prompts", str(folder / "prompts.jsonl")]
    done = CliRunner().invoke(app, ["policy", "check", *words])
    assert done.exit_code == 2
    assert "it has 'frage', 'loesung', 'id'" in done.output
    done = CliRunner().invoke(
        app, ["policy", "check", *words, "--columns", "prompt=frage,answer=loesung"]
    )
    assert "checked: a node may answer" in done.output, done.output
    check_site(config, no_policy=False, own_app=False)
    read = node_prompts(settings, config)
    assert [(row.prompt, row.columns["answer"]) for row in read] == [
        (row["prompt"], row["answer"]) for row in rows
    ]
    site.check_prompts(config, settings)
    # What a run names goes behind what the site does; names that were not checked are refused.
    theirs = Settings.from_run_config(CONFIG | {"data.columns": "prompt=question"})
    site.check_prompts(config, theirs)
    with pytest.raises(PolicyError, match="not checked"):
        site.check_prompts(config | {"columns": "prompt=frage,answer=id"}, settings)


def test_columns_that_are_not_there_stop_the_start_with_those_that_are(folder):
    german(folder)
    done = start(site_file(folder, columns=COLUMNS | {"prompt": "question"}))
    assert done.exit_code == 2
    assert "no column 'question'" in done.output
    assert "it has 'frage', 'loesung', 'id'" in done.output
    assert "correct columns in site.toml" in done.output


def test_places_of_a_site_are_beside_its_file_and_read_by_its_node(folder):
    file = site_file(
        folder, models={"lab/model": "model"}, rewards={"r.py:f": "own.py"}, device="cuda:1"
    )
    read = SiteFile.read(file)
    assert read.models == {"lab/model": str(folder / "model")}
    assert read.rewards == {"r.py:f": str(folder / "own.py")}
    settings = Settings.from_mapping(
        {"model": {"name": "lab/model"}, "reward": {"functions": ["r.py:f"]}}
    )
    home = at_home(settings, read.node_config)
    assert (home.model.name, home.model.device) == (str(folder / "model"), "cuda:1")
    assert home.reward.functions == (f"{folder / 'own.py'}:f",)
    (folder / "again.toml").write_text(read.written())
    assert SiteFile.read(folder / "again.toml") == read


# The command -------------------------------------------------------------------------------------


def site_file(folder, **keys):
    named = {"server": "localhost:1", "ca": "ca.crt", "key": "node.key", "prompts": "prompts.jsonl"}
    lines = [f"{key} = {toml(value)}\n" for key, value in (named | keys).items()]
    (folder / "site.toml").write_text("".join(lines))
    return folder / "site.toml"


def toml(value):
    if not isinstance(value, dict):
        return json.dumps(value)
    inner = (f"{json.dumps(key)} = {toml(each)}" for key, each in value.items())
    return "{" + ", ".join(inner) + "}"


def start(file, *words):
    mask = os.umask(0o022)
    try:
        return CliRunner().invoke(app, ["node", str(file), *words])
    finally:
        os.umask(mask)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"promts": "x"}, "promts"),
        ({"threads": -1}, "threads"),
        ({"threads": "four"}, "threads"),
        ({"columns": "question"}, "columns"),
        ({"columns": {"prompt": 1}}, "columns.prompt"),
        ({"device": "gpu"}, "device"),
        ({"hours": "20:00-06:00"}, "write them into its policy.toml"),
        ({"models": {"tiny": "/no/where"}}, "/no/where, for 'tiny', does not exist"),
        ({"rewards": {"rewards.py:f": "/no/where.py"}}, "cannot be read"),
        ({"rewards": {"rewards.py:f": "/no/where"}}, "is no .py file"),
        ({"rewards": {"rewards.py:f(x=1)": "/x.py"}}, "is no FILE.py:FUNCTION without options"),
        ({"rewards": {"exact_match": "/x.py"}}, "is no FILE.py:FUNCTION without options"),
        ({"app": "nothing"}, "names no app"),
        ({"app": "no.such.module:app"}, "cannot be loaded"),
        ({"app": "fedgrpo.federation.server.app:make_server_app"}, "no ClientApp"),
        ({}, "cannot be read"),
    ],
)
def test_a_site_file_that_is_wrong_is_refused_in_words(folder, keys, said):
    check_prompts(folder / "prompts.jsonl")
    done = start(site_file(folder, **keys))
    assert done.exit_code == 2
    assert said in done.output
    assert "cure: " in done.output


def test_files_that_begin_with_a_byte_order_mark_are_read(folder):
    file = site_file(folder)
    for path in (file, folder / "policy.toml"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert SiteFile.read(file).server == "localhost:1"
    check_prompts(folder / "prompts.jsonl")
    check(folder)


def test_a_site_file_that_is_not_there_is_refused_in_words(folder):
    done = start(folder / "nowhere.toml")
    assert done.exit_code == 2
    assert "nowhere.toml" in done.output


def test_a_start_that_was_refused_costs_nothing(folder):
    start(site_file(folder))
    assert not (folder / "spent.jsonl").exists()
