"""``fedgrpo doctor`` as a command: its exit codes; nothing is changed, and nothing leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.children import end, start
from fedgrpo.federation.deployment.doctor import visit
from fedgrpo.federation.deployment.doctor.visit import before_start
from fedgrpo.federation.deployment.log.lines import Lines
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import RunError
from fedgrpo.site.node_folder import FINDINGS, folder_beside
from tests.federation.deployment.doctor.surrounded import (
    SECRET,
    TOKEN,
    Door,
    invitation,
    site_folder,
    tree,
    write_prompts,
)
from tests.federation.deployment.operated import environment


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    with Door(tmp_path_factory.mktemp("door")) as door:
        yield door


def run(*words):
    return CliRunner().invoke(app, ["doctor", *map(str, words)])


def test_an_invitation_that_is_none_is_red_and_ends_with_1(tmp_path):
    done = run(tmp_path / "nowhere.invitation", "--json")
    assert done.exit_code == 1
    listed = json.loads(done.output)
    assert {each["check"] for each in listed} == set(range(1, 22))
    assert all(each["cure"] for each in listed if each["light"] != "green")


def test_what_is_yellow_alone_ends_with_2_and_says_each_cure(door, tmp_path):
    file = tmp_path / "hospital-a.invitation"
    file.write_text(invitation(door.port, door.ca).text)
    done = run(file)
    assert done.exit_code == 2, done.output
    assert "not looked at: no prompts are named" in done.output
    assert "[after-others]" in done.output
    assert "21 checks: " in done.output


@pytest.mark.slow
def test_the_doctor_changes_nothing_and_sends_no_more_than_an_invitation(door, tmp_path):
    """As a process, with the one that looks at prompts; the server records what comes."""
    (tmp_path / "home").mkdir()
    write_prompts(tmp_path / "prompts.jsonl", note=SECRET)
    file = tmp_path / "hospital-a.invitation"
    file.write_text(invitation(door.port, door.ca).text)
    before = tree(tmp_path)
    del door.recording.requests[:]
    words = ["doctor", "--json", str(file), "--prompts", "prompts.jsonl"]
    done = subprocess.run(
        [sys.executable, "-B", "-m", "fedgrpo.cli.app", *words],
        env=environment() | {"HOME": str(tmp_path / "home")},
        cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    green = {each["check"]: each for each in json.loads(done.stdout) if each["light"] == "green"}
    assert "8 rows, 8 units" in green[9]["line"], done.stdout
    assert "numbers for 8 prompts" in green[13]["line"]
    check_recorded(door, {("GET", "/hello"), ("POST", "/invited")})
    assert SECRET not in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert tree(tmp_path) == before


def test_a_site_s_doctor_changes_nothing_and_sends_greetings_alone(door, tmp_path):
    file = site_folder(tmp_path / "site", door.port, door.ca)
    write_prompts(tmp_path / "site" / "prompts.jsonl", note=SECRET)
    before = tree(tmp_path)
    del door.recording.requests[:]
    done = run(file)
    check_recorded(door, {("GET", "/hello")})
    assert SECRET not in done.output
    assert tree(tmp_path) == before


def check_recorded(door, allowed):
    """Hold what came against what may come."""
    assert {request[:2] for request in door.recording.requests} == allowed
    for _, path, headers, body in door.recording.requests:
        assert set(json.loads(body or b"{}")) == (INVITED if path == "/invited" else set())
        assert SECRET.encode() not in b"".join([*headers, *headers.values(), bytes(body)])
        assert set(headers) <= HEADERS


INVITED = {"site", "token", "fedgrpo", "protocol"}
CREDENTIALS = {b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"}
HEADERS = CREDENTIALS | {
    b"host",
    b"accept",
    b"accept-encoding",
    b"connection",
    b"user-agent",
    b"content-length",
}


# Visits to a node --------------------------------------------------------------------------------


def test_a_node_does_not_start_while_something_stops_it(door, tmp_path):
    file = site_folder(tmp_path / "site", door.port, door.ca)
    (tmp_path / "site" / "node.key").chmod(0o644)
    with pytest.raises(RunError, match="key-mode") as raised:
        before_start(SiteFile.read(file))
    assert "chmod 600" in raised.value.cure


def test_what_does_not_stop_a_node_is_logged_and_kept_without_what_follows_from_prompts(
    door, tmp_path, caplog
):
    file = site_folder(tmp_path / "site", door.port, door.ca, threads=10_000)
    before_start(SiteFile.read(file))
    assert "red: threads = 10000 in site.toml" in caplog.text
    (line,) = (each for each in caplog.records if getattr(each, "code", "") == "threads-many")
    assert " [threads-many]; cure: write threads = " in Lines().format(line)
    kept = folder_beside(tmp_path / "site" / "prompts.jsonl") / FINDINGS
    assert kept.stat().st_mode & 0o777 == 0o600
    listed = json.loads(kept.read_text())["findings"]
    assert "threads-many" in {each["code"] for each in listed}
    assert not {9, 13, 21} & {each["check"] for each in listed}


def test_prompts_that_have_changed_are_told_to_the_log_alone(door, tmp_path, caplog):
    file = site_folder(tmp_path / "site", door.port, door.ca)
    write_prompts(tmp_path / "site" / "prompts.jsonl", 9)
    del door.recording.requests[:]
    with pytest.raises(RunError, match="prompts-unchecked"):
        before_start(SiteFile.read(file))
    assert "have changed since they were checked" in caplog.text
    kept = folder_beside(tmp_path / "site" / "prompts.jsonl") / FINDINGS
    assert "unchecked" not in kept.read_text()
    assert {request[:2] for request in door.recording.requests} == {("GET", "/hello")}


@pytest.mark.slow
def test_a_visit_to_a_running_node_is_a_process_that_ends_by_itself(door, tmp_path):
    """As the node starts it: what it is to look at comes on its standard input."""
    site = SiteFile.read(site_folder(tmp_path / "site", door.port, door.ca, threads=10_000))
    process = start(visit.__name__, {"site": site.model_dump(), "what": "hourly"})
    assert process.wait(120) == 0
    end(process)
    kept = json.loads((folder_beside(tmp_path / "site" / "prompts.jsonl") / FINDINGS).read_text())
    assert "threads-many" in {each["code"] for each in kept["findings"]}
