"""What a site's people see of their own node, and that nothing of it follows from prompts."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.children import end, start
from fedgrpo.federation.deployment.doctor.surroundings import Moment, Surroundings
from fedgrpo.federation.deployment.doctor.visit import visit
from fedgrpo.federation.deployment.executor.door import MODEL_PROCESS
from fedgrpo.federation.deployment.site import node
from fedgrpo.federation.deployment.site.node import WATCHED, run_node
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.deployment.site.watch.overview import GRAIN, SILENT_S, look
from fedgrpo.federation.deployment.site.watch.shown import KINDS, page, samples
from fedgrpo.federation.deployment.site.watch.telling import lines
from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.run_files import alone
from fedgrpo.report.watch.metrics import exposition
from fedgrpo.report.watch.page import render
from fedgrpo.settings import Settings
from fedgrpo.site import Site, site_of, spent_epsilon
from fedgrpo.site.account.costs import round_entry
from fedgrpo.site.node_folder import CONTACT, RUNNING, SHUT_OUT, folder_beside, owned_folder
from tests.federation.deployment.doctor.surrounded import SECRET, site_folder, write_prompts
from tests.federation.deployment.operated import libraries, until


@pytest.fixture
def file(tmp_path):
    """A site that has answered three rounds, one of them with mishaps."""
    file = site_folder(tmp_path / "site")
    own = Site.open(tmp_path / "site" / "policy.toml")
    for number in range(1, 4):
        entry = round_entry(
            Settings(), at=f"2026-11-27T10:0{number}:00", run=7, round=number, plan=f"{number}" * 64
        )
        own.spending.charge(entry, lambda _: None)
    own.mishaps.add({"whole contribution zero: RuntimeError": 7351})
    return file


@pytest.fixture
def folder(file):
    return owned_folder(folder_beside(file.parent / "prompts.jsonl"))


@pytest.fixture
def site(file):
    return SiteFile.read(file)


def every_form(seen):
    told = exposition(KINDS, samples(seen)).decode()
    return [json.dumps(seen.to_json()), "\n".join(lines(seen)), render(page(seen)), told]


def test_the_account_is_told_with_its_limits(site):
    seen = look(site, add_up=True)
    assert seen.account.releases == 3
    assert (seen.last.run, seen.last.round) == (7, 3)
    said, console, html, told = every_form(seen)
    (unit,) = json.loads(said)["account"]["units"]
    assert f"{unit['epsilon']:.2f}" in console
    assert f"{unit['epsilon']:.2f}" in html
    assert f'fedgrpo_account_epsilon{{unit="prompt"}} {unit["epsilon"]}' in told
    assert "fedgrpo_account_releases 3.0" in told
    assert "3 of 1000 releases" in console


def test_who_only_looks_adds_nothing_up(site):
    """That takes seconds and torch; the node does so when it charges, and the doctor every hour."""
    assert look(site).account.units == ()
    assert "epsilon" not in exposition(KINDS, samples(look(site))).decode()
    kept = site_of(site.node_config).standing()
    assert look(site).account == kept == look(site, add_up=True).account
    assert kept.units[0].epsilon == spent_epsilon(
        [round_entry(Settings())] * 3, "prompt", kept.delta
    )


def test_what_was_added_up_is_of_this_account_and_this_delta(site, file):
    own = site_of(site.node_config)
    before = own.standing()
    policy = file.parent / "policy.toml"
    policy.write_text(f"delta = 1e-6\n{policy.read_text()}")
    assert look(site).account.units == ()
    assert look(site, add_up=True).account.units[0].epsilon > before.units[0].epsilon
    own = site_of(site.node_config)
    own.spending.charge(round_entry(Settings(), plan="9" * 64), lambda _: None)
    assert look(site).account.units == ()
    kept = file.parent / "spent.epsilon.json"
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_text("{}")
    assert look(site, add_up=True).account.releases == 4


def test_a_node_that_does_not_run_is_the_first_thing_to_do(site, folder):
    assert look(site).problems[0].code == "node-down"
    with alone(folder, RUNNING, cure=""):
        seen = look(site)
        assert seen.running == str(os.getpid())
        assert not seen.problems
        assert "fedgrpo_node_up 1.0" in exposition(KINDS, samples(seen)).decode()


def test_a_server_that_has_been_silent_for_longer_than_an_answer_takes_is_told(site, folder):
    mark = folder / CONTACT
    mark.touch()
    with alone(folder, RUNNING, cure=""):
        assert not look(site).problems
        answer_s, now = 600.0, mark.stat().st_mtime
        os.utime(mark, (now, now - SILENT_S - answer_s + 30))
        assert not look(site).problems, "it may be answering an order"
        os.utime(mark, (now, now - SILENT_S - answer_s - 30))
        (problem,) = look(site).problems
    assert problem.code == "server-silent"
    assert "for 14 minutes" in problem.line


def test_why_the_server_was_lost_is_told_until_it_answers_again(site, folder, monkeypatch):
    said = {"problem": "fed.example:8443 refuses this node: revoked", "cure": "ask the operator"}
    monkeypatch.setattr(node, "answered", lambda *_: said)
    (folder / CONTACT).touch()
    os.utime(folder / CONTACT, (1, 1))
    assert "refuses this node" in node._what_is_wrong(site, folder)
    assert (folder / SHUT_OUT).stat().st_mode & 0o077 == 0
    with alone(folder, RUNNING, cure=""):
        (problem,) = look(site).problems
        assert (problem.code, problem.cure) == ("server-refuses", "ask the operator")
        assert all("revoked" in told for told in every_form(look(site))[:3])
        os.utime(folder / CONTACT)
        assert not look(site).problems
        (folder / SHUT_OUT).write_text("[]")
        os.utime(folder / CONTACT, (1, 1))
        assert [each.code for each in look(site).problems] == ["server-silent"]


def test_a_server_that_lets_the_node_in_is_no_reason(site, folder, monkeypatch):
    monkeypatch.setattr(node, "answered", lambda *_: {})
    assert "a minute still" in node._what_is_wrong(site, folder)
    assert not (folder / SHUT_OUT).exists()


def test_nothing_that_is_told_follows_from_prompts(site, folder):
    """Not what the doctor finds in them, no count of zero rows, no time and no memory."""
    write_prompts(folder.parent / "prompts.jsonl", 9, note=SECRET)
    found = visit(Surroundings(site, moment=Moment.HOURLY))
    assert "prompts-unchecked" in {finding.code for finding in found}
    (folder / "units.json").write_text('{"seconds": 73.51}')
    seen = look(site)
    assert seen.visit.time == pytest.approx(datetime.now().timestamp(), abs=60)
    assert seen.visit.problems, "what is wrong elsewhere is told"
    for said in every_form(seen):
        for private in ("prompts-", "7351", "zero", "73.51", SECRET, "peak", "memory"):
            assert private not in said


def test_prompts_change_no_bit_of_what_is_told(site, folder):
    visit(Surroundings(site, moment=Moment.HOURLY))
    before = look(site)
    write_prompts(folder.parent / "prompts.jsonl", 9, note=SECRET)
    visit(Surroundings(site, moment=Moment.HOURLY))
    after = look(site)
    same = {"time": 0.0, "visit": replace(after.visit, time=0.0), "free_bytes": 0}
    assert replace(before, **(same | {"visit": replace(before.visit, time=0.0)})) == replace(
        after, **same
    )


def test_what_the_doctor_left_may_be_anything(site, folder):
    for content in ("", "[]", "{}", '{"at": 1, "findings": []}', '{"at": "x", "findings": [1]}'):
        (folder / "doctor.json").write_text(content)
        assert look(site).visit.time == 0.0
    assert "never came yet" in "\n".join(lines(look(site)))


def test_an_account_that_was_changed_is_a_problem_and_no_crash(site, file):
    spent = file.parent / "spent.jsonl"
    spent.write_text(spent.read_text().replace('"round": 2', '"round": 9'))
    seen = look(site)
    assert seen.account is None
    assert "account-broken" in {problem.code for problem in seen.problems}
    assert "fedgrpo_account" not in every_form(seen)[3]


def test_the_clocks_drift_is_the_doctors(site, folder):
    visit(Surroundings(site, moment=Moment.HOURLY))
    kept = folder / "doctor.json"
    said = json.loads(kept.read_text())
    assert said["drift_s"] is None, "the server was not reached"
    kept.write_text(json.dumps(said | {"drift_s": -2.5}))
    said, console, html, told = every_form(look(site))
    assert "2.5 s behind the server's" in console
    assert "2.5 s behind the server" in html
    assert "fedgrpo_clock_drift_seconds -2.5" in told


def test_whether_a_model_process_lives_is_not_told(site, tmp_path):
    """It may have died of a prompt."""
    with (
        alone(owned_folder(folder_beside(Path(site.prompts))), RUNNING, cure=""),
        socket.socket(socket.AF_UNIX) as door,
    ):
        before = look(site)
        door.bind(str(tmp_path / "door"))
        process = start(MODEL_PROCESS, {"door": door.fileno(), "idle_s": 60}, keep=(door.fileno(),))
        try:
            assert replace(look(site), time=before.time) == before
        finally:
            end(process)


def test_a_log_that_grows_shows_in_no_figure(site, folder):
    """What went wrong with prompts is logged on the disk whose room is told."""
    sizes = {look(site).free_bytes}
    (folder / "more").write_bytes(os.urandom(1 << 16))
    sizes.add(look(site).free_bytes)
    assert all(size % GRAIN == 0 for size in sizes)


def test_the_command_takes_a_folder_or_its_file_and_its_code_says_whether_the_node_runs(
    file, folder
):
    for place in (file, file.parent):
        done = CliRunner().invoke(app, ["status", str(place)])
        assert done.exit_code == 1, done.output
        assert "3 of 1000 releases" in done.output
        assert "to do: no node runs here [node-down]; cure: " in done.output
    with alone(folder, RUNNING, cure=""):
        as_json = CliRunner().invoke(app, ["status", "--json", str(file.parent)])
    assert as_json.exit_code == 0
    assert json.loads(as_json.output)["account"]["releases"] == 3


def test_a_page_that_other_machines_could_reach_is_refused(file):
    with file.open("a") as more:
        more.write('status_bind = "0.0.0.0:8450"\n')
    with pytest.raises(SettingsError, match="not on loopback"):
        run_node(SiteFile.read(file), no_policy=False)


@pytest.mark.slow
def test_the_page_is_a_process_behind_a_password(site):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        told = {"socket": listening.fileno(), "site": site.model_dump(), "password": "word"}
        process = start(WATCHED, told, keep=(listening.fileno(),))
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=base, trust_env=False, timeout=60) as client:
            try:
                until(lambda: client.get("/metrics").status_code == 401)
                client.headers["authorization"] = "Bearer word"
                assert "fedgrpo_account_releases 3.0" in client.get("/metrics").text
                assert "no node runs here" in client.get("/").text
                assert client.get("/picture.png").status_code == 404
                assert not libraries(process, "torch"), "who looks takes no memory for it"
                assert client.get("/", headers={"host": "evil.example"}).status_code == 421
            finally:
                end(process)
