"""What an operator sees of sites and runs, and when the server goes on with one by itself."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from fedgrpo.federation.deployment.flower_internals.control import KnownNode
from fedgrpo.federation.deployment.gateway.enrolment.book import Enrolled
from fedgrpo.federation.deployment.operator.keeping import LONGEST_WAIT_S, is_left, wait_s
from fedgrpo.federation.deployment.operator.runs import following
from fedgrpo.federation.deployment.operator.runs.asking import (
    ask,
    check_sites,
    check_versions,
    fitting,
    goes_on,
    wish_for,
)
from fedgrpo.federation.deployment.operator.runs.present import (
    SeenSite,
    seen_sites,
    waiting_line,
)
from fedgrpo.federation.deployment.operator.runs.seen import by_name, names, seen_run
from fedgrpo.federation.deployment.operator.wish import Submitted, Wish
from fedgrpo.federation.server.checks import check_measuring
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RewardError, RunError, SettingsError, VersionError
from fedgrpo.report.reader import read_dropped
from fedgrpo.report.wording import ago
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Settings

NOW = 1_000_000.0
THREE = Settings.from_run_config(
    {"federation.min_clients": 3, "robust.rule": "mean", "robust.trim": 0, "rounds": 2}
)


def site(name, node=0, *, online=None, seen=0.0, state="takes part"):
    return SeenSite(name, state, node=node, online=online, seen=seen)


def test_the_waiting_line_says_who_is_missing_and_since_when():
    sites = (
        site("hospital-a", 1, online=True),
        site("hospital-b", 2, online=False, seen=NOW - 7200),
        site("hospital-c", 3, online=False),
        site("hospital-d", state="invited"),
    )
    assert waiting_line(sites, 3, NOW) == (
        "waiting: 1 of 3 sites are here (hospital-a), missing hospital-b (last seen 2 h ago), "
        "hospital-c (never seen)"
    )
    assert "a round needs 9, and 3 take part: invite more" in waiting_line(sites, 9, NOW)


def test_times_are_written_as_people_say_them():
    assert [ago(s) for s in (5, 90, 7200, 200_000)] == [
        "5 s ago",
        "1:30 min ago",
        "2 h ago",
        "2 days ago",
    ]


def test_the_book_and_the_servers_nodes_are_one_list():
    book = {
        "a": Enrolled(key="A", used_by="A", token="x"),
        "b": Enrolled(waiting="B", used_by="B", token="x"),
        "c": Enrolled(token="x", expires=int(NOW) + 60),
        "d": Enrolled(token="x", expires=int(NOW) - 60),
        "e": Enrolled(former=["E"]),
    }
    known = {b"A": KnownNode(7, True, NOW + 30), b"X": KnownNode(9, False, NOW - 5)}
    found = seen_sites(book, known, NOW)
    assert [(s.name, s.state, s.node) for s in found] == [
        ("a", "takes part", 7),
        ("b", "waits for confirmation", 0),
        ("c", "invited", 0),
        ("d", "invitation expired", 0),
        ("e", "revoked", 0),
        ("9", "registered by hand", 9),
    ]
    assert found[0].whereabouts(NOW) == "online"
    assert {s.whereabouts(NOW) for s in seen_sites(book, None, NOW)} == {""}


def test_a_dropped_node_is_told_by_its_sites_name(tmp_path):
    writer = RunWriter(tmp_path)
    writer.dropped(2, {7: "refused, hours: run within the site's hours", 8: "no reply in time"})
    first, second = read_dropped(tmp_path)
    named = names([site("hospital-a", 7)])
    assert by_name(first, named) == (
        "hospital-a was dropped in round 2: refused, hours: run within the site's hours"
    )
    assert "node 8" in by_name(second, named)
    assert (tmp_path / "dropped.jsonl").stat().st_mode & 0o077 == 0


def test_too_few_sites_are_told_what_those_that_there_are_would_need():
    sites = tuple(site(f"h{n}", n + 1) for n in range(4))
    with pytest.raises(SettingsError, match="= 9, and 4 sites take part") as refused:
        check_sites(Settings(), sites)
    assert "for 4 sites federation.min_clients = 4" in refused.value.cure
    check_sites(THREE, sites)


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_settings_that_are_offered_are_possible(count):
    changed = next(fitting(Settings(), count))
    read = Settings.from_run_config(Settings().to_run_config() | changed)
    assert read.federation.min_clients == count


def test_for_two_sites_there_are_none():
    assert not list(fitting(Settings(), 2))


@pytest.fixture
def wish(tmp_path):
    made = wish_for(tmp_path, tmp_path / "runs", "spring", THREE)
    ask(tmp_path, made)
    return made


def test_a_run_is_kept_as_it_was_asked_for(tmp_path, wish):
    assert Wish.read(tmp_path) == wish
    assert Settings.from_run_config(wish.config).rounds == 2
    assert wish.config["run.directory"] == str(tmp_path / "runs" / "spring")
    run = seen_run(tmp_path)
    assert run
    assert (run.name, run.state, run.rounds) == ("spring", "submitted", 2)
    assert goes_on(run, wish)


def test_another_run_waits_for_the_end_of_this_one(tmp_path, wish):
    with pytest.raises(RunError, match="run spring is under way"):
        wish_for(tmp_path, tmp_path / "runs", "summer", THREE)
    wish.model_copy(update={"stopped": True}).write(tmp_path)
    wish_for(tmp_path, tmp_path / "runs", "summer", THREE)


def test_the_same_name_with_other_settings_is_refused(tmp_path, wish):
    other = Settings.from_run_config(THREE.to_run_config() | {"rounds": 5})
    with pytest.raises(RunError, match="rounds = 2 there, 5 here"):
        wish_for(tmp_path, tmp_path / "runs", "spring", other)


def test_a_run_that_has_ended_says_so(tmp_path, wish):
    (Path(wish.directory) / "summary.json").write_text("{}")
    with pytest.raises(RunError, match="has ended"):
        wish_for(tmp_path, tmp_path / "runs", "spring", THREE)
    assert not is_left(wish, None)


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="cannot name a run"):
        wish_for(tmp_path, tmp_path / "runs", name, THREE)


def submitted(wish):
    return Submitted(wish=wish.number, run=1, server="s", times=1, since=time.time())


def test_the_server_goes_on_with_what_was_interrupted_and_not_with_what_gave_up(wish):
    writer, mine = RunWriter(Path(wish.directory)), submitted(wish)
    assert is_left(wish, None)
    writer.phase(1, 2, "train")
    assert is_left(wish, mine), "killed in the middle of a round"
    writer.interrupt("the server was stopped", "")
    assert is_left(wish, mine), "stopped with its machine"
    writer.fail("3 rounds in a row were skipped", "start more nodes")
    assert not is_left(wish, mine), "the server app gave up"


def test_a_run_that_failed_is_gone_on_with_when_it_is_asked_for_again(tmp_path, wish):
    RunWriter(Path(wish.directory)).fail("no", "")
    run = seen_run(tmp_path)
    assert run
    assert (run.state, run.problem) == ("failed", "no")
    again = wish_for(tmp_path, tmp_path / "runs", "spring", THREE)
    ask(tmp_path, again)
    assert is_left(again, None)
    found = seen_run(tmp_path)
    assert found
    assert found.state == "submitted"


def test_who_follows_a_run_that_cannot_begin_is_told_why(tmp_path, wish, monkeypatch):
    monkeypatch.setattr(following, "present", lambda *_: ())
    console = Console(file=io.StringIO(), width=200)
    watch = following._Watch(tmp_path, wish, 3, console)
    assert not watch.over()
    assert "waiting: 0 of 3 sites" in console.file.getvalue()
    tried = Submitted(wish=wish.number, run=0, server="s", times=1, since=NOW, problem="no flwr")
    tried.write(tmp_path)
    watch._look(time.time())
    assert "it cannot begin yet: no flwr; cure: if it goes on, end the" in console.file.getvalue()
    assert not watch.over(), "the server tries again"


def test_waits_between_submissions_grow_and_have_an_end():
    waits = [wait_s(times) for times in range(12)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_S


def test_what_is_kept_of_a_wish_is_its_owners_alone_and_is_read_strictly(tmp_path, wish):
    file = tmp_path / "wish.json"
    assert file.stat().st_mode & 0o077 == 0
    file.write_text(json.dumps({"run": "spring"}))
    with pytest.raises(RunError, match=r"wish\.json cannot be read"):
        Wish.read(tmp_path)


def test_a_run_is_refused_while_sites_run_another_version_and_they_are_listed():
    def running(name, version, state="takes part"):
        return SeenSite(name, state, node=1, version=version)

    same = (running("a", VERSION), running("b", ""), running("c", "0.0.1", state="revoked"))
    check_versions(same)
    with pytest.raises(VersionError, match=r"not so d \(0\.0\.1\), e \(9\.9\)") as refused:
        check_versions((*same, running("d", "0.0.1"), running("e", "9.9")))
    assert VERSION in refused.value.problem
    assert "fedgrpo revoke" in refused.value.cure


def test_what_the_server_measures_by_is_loaded_before_a_run_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = Settings.from_mapping({"reward": {"functions": ["theirs.py:correct"]}})
    with pytest.raises(RewardError, match="the server cannot measure held-out prompts") as refused:
        check_measuring(theirs)
    assert "reward.evaluation" in refused.value.cure
    check_measuring(
        Settings.from_mapping(
            {"reward": {"functions": ["theirs.py:correct"], "evaluation": ["exact_match"]}}
        )
    )
