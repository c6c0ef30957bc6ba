"""Members of a committee vouch for the ledger of their run, and for no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from fedgrpo.federation import make_server_app
from fedgrpo.federation.state.node_store import FolderShelf
from fedgrpo.ledger import Signed, verify
from tests.federation.federation import Federation
from tests.federation.runs import COMMITTEE, MODEL, Runs

pytestmark = pytest.mark.slow

NODES = 6


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgrpo.report.plots.plot_run", lambda run_dir: None)


def play(directory: Path, runs: Runs, attempt: int = 1, **options: Any) -> Federation:
    settings = runs.settings(directory)
    federation = Federation(settings, NODES, run_id=attempt, **options)
    context = Context(attempt, 1, {}, RecordDict(), settings.to_run_config())
    make_server_app(model=MODEL)(federation.grid, context)
    return federation


def test_all_four_members_vouch_for_every_entry(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NODES, **COMMITTEE)
    play(tmp_path / "run", runs)
    verdict = verify(tmp_path / "run")
    assert verdict.ended
    assert list(verdict.cosigned.values()) == [verdict.checkpoint.size] * 4
    lines = (tmp_path / "run" / "cosignatures.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 3, "after each of two rounds, and of the end"


def test_a_member_that_was_away_vouches_later_for_what_it_missed(tmp_path: Path) -> None:
    asked: list[int] = []

    def drop(stage: str, node: int) -> bool:
        if (stage, node) == ("cosign", 1002):
            asked.append(node)
        return (stage, node) == ("cosign", 1002) and len(asked) == 1

    play(tmp_path / "run", Runs(tmp_path, NODES, **COMMITTEE), drop=drop)
    verdict = verify(tmp_path / "run")
    assert list(verdict.cosigned.values()) == [verdict.checkpoint.size] * 4
    assert len((tmp_path / "run" / "cosignatures.jsonl").read_text().splitlines()) == 4 * 3 - 1


def test_a_member_vouches_after_a_resume(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NODES, **COMMITTEE)
    broken, whole = runs.prepare("broken"), runs.prepare("whole")
    steps = runs.steps(whole)
    assert runs.killed(broken, steps * 3 // 5)
    runs.go(broken, attempt=2)
    assert verify(broken) == verify(whole)
    assert len(set(verify(broken).cosigned.values())) == 1


def test_what_a_member_does_not_sign_or_signs_wrongly_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def tamper(stage: str, node: int, reply: Any) -> Any:
        if (stage, node) == ("cosign", 1002):
            signature = reply.content["Vouched"]["signature"]
            reply.content["Vouched"]["signature"] = signature[::-1]
        return reply

    play(tmp_path / "run", Runs(tmp_path, NODES, **COMMITTEE), tamper=tamper)
    assert len(verify(tmp_path / "run").cosigned) == 3


def test_a_member_that_signed_another_ledger_of_the_run_does_not_sign_this_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"

    def forge(stage: str, node: int, reply: Any) -> Any:
        # Between its two signatures, this member has seen an entry that is not in the ledger.
        for path in directory.glob("nodes/1/witness-*.safetensors"):
            shelf = FolderShelf(path.parent)
            signed = shelf.read(Signed, path.stem)
            assert signed is not None
            shelf.write(path.stem, replace(signed, last="00" * 32))
        return reply

    play(directory, Runs(tmp_path, NODES, **COMMITTEE), tamper=forge)
    assert "does not vouch for the ledger: refused, ledger: " in caplog.text
    cosigned = verify(directory).cosigned
    assert sorted(cosigned.values()) == [2, 4, 4, 4]


def test_without_a_committee_nobody_is_asked(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NODES, **COMMITTEE | {"aggregation__protocol": "plain"})
    federation = play(tmp_path / "run", runs)
    assert {stage for stage, _ in federation.grid.sent} == {"train"}
    assert verify(tmp_path / "run").cosigned == {}


def test_nobody_waits_for_a_member_that_was_lost(tmp_path: Path) -> None:
    """A silent one would cost a time limit after each round, and once more at the end."""
    asked: list[int] = []

    def drop(stage: str, node: int) -> bool:
        asked.extend([node] * (stage == "cosign"))
        gone = (stage, node) in {("committee", 1002), ("train", 1002), ("cosign", 1002)}
        return gone and len(asked) - (stage == "cosign") >= 8

    settings = COMMITTEE | {"federation__min_clients": 5}
    play(tmp_path / "run", Runs(tmp_path, NODES, **settings), drop=drop)
    verdict = verify(tmp_path / "run")
    assert (verdict.rounds, verdict.aborted) == (2, 1)
    assert sorted(verdict.cosigned.values()) == [2, 4, 4, 4]
    assert asked.count(1002) == 2, "both before it was lost: how far it had come, and its signature"
