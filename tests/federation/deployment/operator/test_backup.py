"""A federation fits into one file, which is whole or refused, and comes back as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation import FedGRPO
from fedgrpo.federation.deployment.gateway.enrolment.book import Book
from fedgrpo.federation.deployment.operator import backup as backing
from fedgrpo.federation.deployment.operator.backup import CONTENTS, back_up, restore
from fedgrpo.federation.deployment.operator.federation_file import FederationFile
from fedgrpo.federation.deployment.operator.folder import StateFolder
from fedgrpo.federation.deployment.operator.keeping import is_left
from fedgrpo.federation.deployment.operator.runs.asking import ask, wish_for
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.federation.protocols.openings import Openings
from fedgrpo.federation.server.checkpoint import FILE as CHECKPOINT
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import RunError
from fedgrpo.ledger import FILE as LEDGER
from fedgrpo.ledger import Ledger, verify
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Settings
from tests.federation.deployment.operator.test_folder import AGREED
from tests.federation.federation import Federation, make_settings
from tests.federation.kills import KilledError

KEY = bytes(range(32))

THREE = Settings.from_run_config(
    {"federation.min_clients": 3, "robust.rule": "mean", "robust.trim": 0, "rounds": 2}
)


def cli(*words, code=0):
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def folder(tmp_path):
    """A federation with a site and a run under way."""
    cli("server", "init", tmp_path / "fed", "--host", "fed.example")
    (tmp_path / "agreed.toml").write_text(AGREED)
    cli(
        "invite", "hospital-a", "--settings", tmp_path / "agreed.toml", "--server", tmp_path / "fed"
    )
    ask(
        tmp_path / "fed", wish := wish_for(tmp_path / "fed", tmp_path / "fed/runs", "spring", THREE)
    )
    run = tmp_path / "fed" / "runs" / wish.run
    (run / "run.secret").write_bytes(bytes(32))
    (run / "ledger.jsonl").write_text("{}\n")
    (tmp_path / "fed" / "flwr").mkdir()
    (tmp_path / "fed" / "flwr" / "credentials.yaml").write_text("of this process")
    return tmp_path / "fed"


def contents(folder):
    """All files but those that a restore writes anew."""
    anew = ("wish.json", "opened.json", "fedgrpo-server.service")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in anew and not path.name.endswith(".lock")
    }


def test_what_was_deleted_comes_back_with_its_keys_sites_and_runs(folder, tmp_path):
    before = contents(folder)
    said = cli("backup", folder, tmp_path / "kept.backup")
    assert "yours alone" in said
    assert (tmp_path / "kept.backup").stat().st_mode & 0o777 == 0o600
    shutil.rmtree(folder)
    said = cli("restore", tmp_path / "kept.backup", folder)
    assert "run spring goes on with its next round" in said
    shutil.rmtree(folder / "flwr", ignore_errors=True)
    assert contents(folder) == {n: c for n, c in before.items() if not n.startswith("flwr")}
    modes = {path.stat().st_mode & 0o077 for path in folder.rglob("*") if path.is_file()}
    assert contents(folder)["ca.key"]
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert 0 in modes
    assert folder.stat().st_mode & 0o077 == 0


def test_a_server_that_moves_to_another_folder_finds_its_run_there(folder, tmp_path):
    back_up(folder, tmp_path / "kept.backup")
    moved = tmp_path / "elsewhere" / "fed"
    restore(tmp_path / "kept.backup", moved)
    wish = Wish.read(moved)
    assert wish
    assert wish.directory == wish.config["run.directory"] == str(moved / "runs" / "spring")
    assert is_left(wish, None), "the server goes on with it"
    assert Book(moved).sites() == Book(folder).sites()
    assert FederationFile.read(moved).runs == str(moved / "runs")
    assert str(moved) in (moved / "fedgrpo-server.service").read_text()
    assert str(folder) not in (moved / "fedgrpo-server.service").read_text()


def test_runs_that_lie_elsewhere_are_in_it_and_go_back_there(folder, tmp_path):
    runs = tmp_path / "disk" / "runs"
    runs.parent.mkdir()
    (folder / "runs").rename(runs)
    text = (folder / "federation.toml").read_text().replace('"runs"', json.dumps(str(runs)))
    (folder / "federation.toml").write_text(text)
    back_up(folder, tmp_path / "kept.backup")
    with pytest.raises(RunError, match="has its runs, exists"):
        restore(tmp_path / "kept.backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    shutil.rmtree(runs)
    restore(tmp_path / "kept.backup", tmp_path / "new")
    assert (runs / "spring" / "run.secret").read_bytes() == bytes(32)


def test_of_a_run_from_a_backup_the_first_round_opens_nothing(folder, tmp_path):
    """What was opened since is not known, and two different sums would show a single release."""
    back_up(folder, tmp_path / "kept.backup")
    restore(tmp_path / "kept.backup", tmp_path / "new")
    path, sums = tmp_path / "new" / "runs" / "spring" / "opened.json", [frozenset("abc")]
    assert Openings(path).admit(4, sums) == [False]
    assert Openings(path).admit(4, sums) == [False], "nor when it is repeated"
    assert Openings(path).admit(5, sums) == [True]
    assert Openings(path).admit(5, [frozenset("ab")]) == [False]


def test_nothing_is_written_over(folder, tmp_path):
    (tmp_path / "kept.backup").write_text("mine")
    assert "exists, and was not touched" in cli("backup", folder, tmp_path / "kept.backup", code=2)
    assert (tmp_path / "kept.backup").read_text() == "mine"
    back_up(folder, tmp_path / "other.backup")
    before = contents(folder)
    said = cli("restore", tmp_path / "other.backup", folder, code=2)
    assert "nothing in it was touched" in said
    assert contents(folder) == before


@pytest.mark.parametrize(
    "place", ["fed/kept.backup", "nowhere/kept.backup", "fed/runs/kept.backup"]
)
def test_a_place_that_cannot_be_is_refused_with_a_cure(folder, tmp_path, place):
    assert "cure: " in cli("backup", folder, tmp_path / place, code=2)
    assert not list(tmp_path.rglob(".backup-*"))


def refused(file, tmp_path):
    said = cli("restore", file, tmp_path / "new", code=2)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".restore-*"))
    return said


def test_a_torn_file_is_refused_at_whatever_byte_it_ends(folder, tmp_path):
    back_up(folder, tmp_path / "kept.backup")
    whole = (tmp_path / "kept.backup").read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "torn.backup").write_bytes(whole[:kept])
        assert "no backup of fedgrpo, or not all of one" in refused(
            tmp_path / "torn.backup", tmp_path
        )


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "a.backup").write_text("not a backup")
    with zipfile.ZipFile(tmp_path / "b.backup", "w") as other:
        other.writestr("holiday.jpg", b"\xff")
    for name in ("a.backup", "b.backup"):
        assert "no backup of fedgrpo" in refused(tmp_path / name, tmp_path)
    assert "there is no" in refused(tmp_path / "c.backup", tmp_path)


def rewritten(file, to, change):
    """A backup with other members, of which some may be none of its own."""
    with zipfile.ZipFile(file) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    members = change(members)
    with zipfile.ZipFile(to, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return to


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"folder/ca.key": b"another's"}, "damaged: folder/ca.key was changed"),
        ({"folder/more.txt": b""}, "not what it says that it holds"),
        ({CONTENTS: b'{"format": 99}'}, "of format 99"),
        ({CONTENTS: b'{"format": 1, "files": {}}'}, "not what it says that it holds"),
    ],
)
def test_a_changed_file_is_refused(folder, tmp_path, changed, words):
    back_up(folder, tmp_path / "kept.backup")
    file = rewritten(tmp_path / "kept.backup", tmp_path / "x.backup", lambda m: m | changed)
    assert words in refused(file, tmp_path)


@pytest.mark.parametrize("name", ["../evil", "folder/../../evil", "/etc/evil", "folder", "x/evil"])
def test_no_member_is_written_outside_of_the_new_folder(folder, tmp_path, name):
    back_up(folder, tmp_path / "kept.backup")

    def change(members):
        said = json.loads(members[CONTENTS])
        said["files"][name] = "0" * 64
        return {name: b"evil"} | members | {CONTENTS: json.dumps(said)}

    refused(rewritten(tmp_path / "kept.backup", tmp_path / "x.backup", change), tmp_path)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", ["folder//ca.key", "folder/./ca.key", "folder/ca.key/x"])
def test_two_members_at_one_place_are_refused(folder, tmp_path, name):
    back_up(folder, tmp_path / "kept.backup")

    def change(members):
        said = json.loads(members[CONTENTS])
        said["files"][name] = hashlib.sha256(b"evil").hexdigest()
        return members | {name: b"evil", CONTENTS: json.dumps(said)}

    refused(rewritten(tmp_path / "kept.backup", tmp_path / "x.backup", change), tmp_path)


@pytest.mark.parametrize("name", [CONTENTS, "folder/federation.toml"])
def test_a_file_that_would_grow_beyond_itself_is_refused_before_it_fills_the_disk(
    tmp_path, name, monkeypatch
):
    """What is in a backup is not compressed, so nothing in it has to be taken apart to be told."""
    with zipfile.ZipFile(tmp_path / "x.backup", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(name, bytes(1 << 24))
    assert (tmp_path / "x.backup").stat().st_size < 1 << 16
    opened, plain = [], zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda *given, **named: opened.append(1) or plain(*given, **named)
    )
    assert "no backup of fedgrpo" in refused(tmp_path / "x.backup", tmp_path)
    assert not opened


def test_what_is_no_tree_of_sums_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.backup", "w") as deep:
        deep.writestr(CONTENTS, "[" * 200_000)
    assert "no backup of fedgrpo" in refused(tmp_path / "x.backup", tmp_path)


def growing(monkeypatch, file, *, until):
    """Let a file grow whenever a copy is made; returns what has one element a copy."""
    pack, calls = backing._pack, []

    def changing(named, draft):
        calls.append(1)
        done = pack(named, draft)
        if len(calls) <= until:
            with file.open("a") as opened:
                opened.write("{}\n")
        return done

    monkeypatch.setattr(backing, "_pack", changing)
    return calls


def test_a_copy_under_which_something_changes_is_made_again_or_refused(
    folder, tmp_path, monkeypatch
):
    ledger = folder / "runs" / "spring" / "ledger.jsonl"
    calls = growing(monkeypatch, ledger, until=2)
    back_up(folder, tmp_path / "kept.backup")
    assert len(calls) == 3
    growing(monkeypatch, ledger, until=10**6)
    with pytest.raises(RunError, match="would not be of one moment") as told:
        back_up(folder, tmp_path / "other.backup")
    assert "end the server" in told.value.cure
    assert not (tmp_path / "other.backup").exists()
    assert not list(tmp_path.glob(".backup-*"))


def test_a_line_of_the_log_makes_no_copy_anew(folder, tmp_path, monkeypatch):
    log = StateFolder(folder).log
    log.parent.mkdir()
    log.write_text("so far\n")
    calls = growing(monkeypatch, log, until=10**6)
    back_up(folder, tmp_path / "kept.backup")
    assert len(calls) == 1
    restore(tmp_path / "kept.backup", tmp_path / "again")
    assert StateFolder(tmp_path / "again").log.read_text() == "so far\n"


def test_an_interrupted_run_goes_on_from_a_backup_and_its_ledger_holds(folder, tmp_path):
    settings = make_settings(
        robust__rule="mean", robust__trim=0, federation__min_clients=3, rounds=3
    )
    kills = iter([False] * 3 + [True])

    def kill(stage, node):
        if stage == "train" and next(kills, False):
            raise KilledError
        return False

    def strategy(directory):
        ledger = Ledger(directory / LEDGER, derive_key(KEY, "ledger"))
        writer, checkpoint = RunWriter(directory), directory / CHECKPOINT
        return FedGRPO(settings, writer=writer, checkpoint=checkpoint, secret=KEY, ledger=ledger)

    run = folder / "runs" / "spring"
    (run / "ledger.jsonl").unlink()
    first = Federation(settings, 3, drop=kill)
    with pytest.raises(KilledError):
        first.run(strategy(run))
    back_up(folder, tmp_path / "kept.backup")
    shutil.rmtree(folder)
    restore(tmp_path / "kept.backup", folder)
    again = Federation(settings, 3)
    for node, context in again.grid.contexts.items():
        kept = first.grid.contexts[node].state
        context.state.update({name: kept[name] for name in kept if "store" in name})
    again.run(strategy(run))
    rows = RunWriter(run).rows()
    assert [row.applied for row in rows[1:]] == [True, False, True]
    assert "another sum with some of its members was opened" in rows[2].reason
    assert verify(run).rounds == 3
