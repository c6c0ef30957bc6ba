"""What an operator sees: who is missing and why, what is spent, and what to do; in every form."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fedgrpo.federation.deployment.children import end, start
from fedgrpo.federation.deployment.operator.runs.watch.looking import look
from fedgrpo.federation.deployment.operator.runs.watch.shown import KINDS, page, samples
from fedgrpo.federation.deployment.operator.runs.watch.telling import lines
from fedgrpo.federation.deployment.operator.runs.watch.todo import PROBLEMS, todo
from fedgrpo.federation.deployment.operator.serving import WATCHED, Operator, _page
from fedgrpo.privacy import guarantees
from fedgrpo.report.watch.metrics import exposition
from fedgrpo.report.watch.page import render
from fedgrpo.site.refusals import CURES, Refusal
from tests.federation.deployment.operated import libraries, until
from tests.federation.deployment.operator.federated import THREE, federation, seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return federation(tmp_path_factory.mktemp("operator") / "fed")


@pytest.fixture(scope="module")
def overview(folder):
    return seen(folder)


def codes(found):
    return [problem.code for problem in found.problems]


def test_a_site_is_told_with_its_last_refusal_and_the_cure(overview):
    by_name = {site.name: site for site in overview.sites}
    drop = by_name["hospital-b"].dropped
    assert (drop.round, drop.code, drop.times) == (4, "hours", 2)
    assert drop.cure == CURES[Refusal.HOURS]
    away = by_name["hospital-c"]
    assert (away.online, away.dropped.code, away.dropped.reason) == (False, "", "no reply in time")
    assert by_name["hospital-a"].dropped is None


def test_every_problem_has_a_code_and_a_cure_and_those_of_now_come_first(overview):
    assert codes(overview) == [
        "site-version",
        "site-missing",
        "site-waits",
        "hours",
        "node-dropped",
    ]
    assert all(problem.cure for problem in overview.problems)
    assert "hospital-c is not there (last seen 2 h ago)" in overview.problems[1].line
    assert (
        "hospital-b: refused, hours (in 2 rounds, the last of them 4)" in overview.problems[3].line
    )


def test_a_month_before_its_end_every_status_says_so_of_the_certificate(overview):
    for days, words in ((29.0, "ends in 29 days"), (-1.0, "has ended")):
        soon = replace(overview, certificate_days=days)
        soon = replace(soon, problems=todo(soon))
        assert codes(soon)[0] == "certificate-soon"
        assert any(words in line for line in lines(soon))
        assert words in render(page(soon))
    assert "certificate-soon" not in codes(overview)


def test_there_are_ten_problems_at_most(overview):
    many = replace(overview.sites[0], state="waits for confirmation")
    assert len(todo(replace(overview, sites=(many,) * 30))) == PROBLEMS


def test_without_its_server_a_federation_is_looked_at_all_the_same(folder):
    alone = look(folder)
    assert codes(alone)[0] == "server-down"
    assert not alone.running
    assert {site.online for site in alone.sites} == {None}
    assert "is not running" in next(lines(alone))
    assert "fedgrpo_server_up 0.0" in exposition(KINDS, samples(alone)).decode()


def test_console_json_page_and_metrics_are_of_one_dictionary(overview):
    said = json.loads(json.dumps(overview.to_json()))
    console, html = "\n".join(lines(overview)), render(page(overview))
    told = exposition(KINDS, samples(overview)).decode()
    assert said["run"]["round"] == 5
    assert "round 5 of 24" in console
    assert "5 of 24" in html
    assert 'fedgrpo_run_round{run="spring"} 5.0' in told
    assert said["invitations"] == {"hospital-e": 4_000_000_000}
    assert "hospital-e" in console
    for held in said["run"]["epsilon"]:
        assert f"{held['epsilon']:.2f}" in console
        assert f"{held['epsilon']:.2f}" in html
    assert len(said["run"]["epsilon"]) > 1
    assert told.count("fedgrpo_epsilon{") == len(said["run"]["epsilon"])
    assert f"fedgrpo_certificate_days {said['certificate_days']}" in told
    assert 'fedgrpo_run_refusals{code="hours",run="spring"} 2.0' in told
    assert 'fedgrpo_site_online{site="hospital-c"} 0.0' in told
    assert 'fedgrpo_round_seconds{phase="train",run="spring"} 4.0' in told
    assert "http://127.0.0.1:8450/" in console


def test_what_is_spent_is_what_the_ledger_says_however_it_ends(folder, overview):
    assert overview.run.epsilon == guarantees(THREE, 4)
    ledger = Path(overview.run.directory) / "ledger.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"entry": {"kind"')
    assert look(folder).run.epsilon == guarantees(THREE, 4), "a torn line is no line yet"
    for content in (b"", b"{}\n", b"[]\n", b"x\n", whole.splitlines(keepends=True)[0]):
        ledger.write_bytes(content)
        assert look(folder).run.epsilon == ()
    ledger.write_bytes(whole)


def test_a_round_without_effect_is_seen(overview):
    assert overview.run.skipped == 1
    assert "without effect: two sites" in render(page(overview))


def test_every_kind_of_metric_is_told_of_a_run_under_way(overview):
    told = {sample.name for sample in samples(overview)}
    assert told == {kind.name for kind in KINDS}


def test_a_port_that_is_taken_keeps_no_server_from_its_work(tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        operator = Operator(tmp_path, tmp_path, tmp_path, "", 0, "", bind)
        assert _page(operator) is None
    assert [record.code for record in caplog.records] == ["status-unbound"]
    assert _page(replace(operator, status_bind="")) is None


@pytest.mark.slow
def test_elsewhere_than_on_loopback_the_page_has_the_servers_own_tls(folder):
    """It answers to the server's name, and takes no memory for torch."""
    trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        told = {
            "socket": listening.fileno(), "folder": str(folder), "password": "word",
            "hosts": ["fed.example"],
            "tls": [str(folder / "server.pem"), str(folder / "server.key")],
        }  # fmt: skip
        process = start(WATCHED, told, keep=(listening.fileno(),))
        base = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=base, trust_env=False, verify=trust, timeout=60) as client:
            try:
                until(lambda: client.get("/style.css").status_code == 401)
                client.auth = ("me", "word")
                assert "spring" in client.get("/", headers={"host": "fed.example:8450"}).text
                assert client.get("/", headers={"host": "evil.example"}).status_code == 421
                assert client.get("/picture.png").content.startswith(b"\x89PNG")
                assert client.get("/status.json").json()["run"]["name"] == "spring"
                assert "fedgrpo_run_rounds" in client.get("/metrics").text
                assert not libraries(process, "torch")
            finally:
                end(process)
