"""A run that was killed, anywhere and any number of times, ends as one that never was."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedgrpo.federation import make_server_app
from fedgrpo.federation.protocols.committee.sitting import Sitting
from fedgrpo.federation.server.app import ADAPTER
from fedgrpo.federation.server.checkpoint import FILE
from fedgrpo.ground.errors import LedgerError, RunError
from fedgrpo.ground.run_files import SECRET, SERVER_LOCK, alone
from fedgrpo.ledger import verify
from fedgrpo.report.reader import read_rows
from tests.federation.federation import Federation
from tests.federation.kills import KilledError, Power
from tests.federation.runs import (
    CLIENT_NOISE,
    COMMITTEE,
    MODEL,
    MOMENTUM,
    SAVED,
    SERVER_NOISE,
    SMALL,
    Runs,
)

pytestmark = pytest.mark.slow

WITH_FAULTS = {
    "rounds": 4,
    "privacy__unit": "none",
    "simulation__clients": 11,
    "simulation__byzantine": 1,
    "simulation__attack": "collude",
    "simulation__droppers": 1,
    "simulation__dropout": 0.5,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures; and a kill, unlike a power cut, loses nothing that only waits to be synced."""
    monkeypatch.setattr("fedgrpo.report.plots.plot_run", lambda run_dir: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def untidy(directory: Path) -> list[str]:
    return [path.name for path in directory.glob(".*.tmp")]


@pytest.mark.parametrize(
    "kind", [CLIENT_NOISE, SERVER_NOISE, MOMENTUM], ids=["client", "server", "momentum"]
)
@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.soak)])
def test_a_kill_at_any_step_changes_nothing(
    tmp_path: Path, kind: dict[str, Any], every: int
) -> None:
    runs = Runs(tmp_path, 6, **kind)
    whole = runs.prepare("whole")
    steps = runs.steps(whole)
    expected = runs.outcome(whole)
    assert verify(whole).ended
    assert steps > 150, "in all kinds together, more than 500 kills"
    for step in range(1, steps + 1, every):
        broken = runs.prepare(f"broken-{step}")
        assert runs.killed(broken, step)
        if not (broken / "summary.json").exists():
            runs.go(broken, attempt=2)
            assert not untidy(broken)
        assert runs.outcome(broken) == expected, f"killed at step {step}"


@pytest.mark.parametrize(
    ("share", "kills"),
    [(0, 3), *(pytest.param(share, 10, marks=pytest.mark.soak) for share in range(4))],
)
def test_a_kill_in_a_round_of_a_committee_changes_nothing(
    tmp_path: Path, share: int, kills: int
) -> None:
    """Members begin anew with other masks, and open the same. Places are some 700."""
    runs = Runs(tmp_path, 6, **COMMITTEE)
    whole = runs.prepare("whole")
    steps, expected = runs.steps(whole), runs.outcome(whole)
    assert verify(whole).ended
    for step in sorted(random.Random(share).sample(range(1, steps + 1), kills)):
        broken = runs.prepare(f"broken-{step}")
        assert runs.killed(broken, step)
        if not (broken / "summary.json").exists():
            runs.go(broken, attempt=2)
        assert verify(broken).ended
        assert runs.outcome(broken) == expected, f"killed at step {step}"


@pytest.mark.parametrize("every", [23, pytest.param(3, marks=pytest.mark.soak)])
def test_a_kill_while_members_toss_keys_changes_nothing(tmp_path: Path, every: int) -> None:
    """Repeated, a toss is the same one, also where only some have revealed, or have keys."""
    runs = Runs(tmp_path, 6, **COMMITTEE | {"rounds": 1})
    whole, spans, toss = runs.prepare("whole"), [], Sitting.toss
    with pytest.MonkeyPatch.context() as patches:
        power = Power(patches)

        def watched(*arguments: Any) -> None:
            start = power.steps
            toss(*arguments)
            spans.append(range(start + 1, power.steps + 1))

        patches.setattr(Sitting, "toss", watched)
        runs.go(whole, power=power)
    expected = runs.outcome(whole)
    assert len(spans[0]) > 40, "four messages to each member and back, and what they write"
    for step in spans[0][::every]:
        broken = runs.prepare(f"broken-{step}")
        assert runs.killed(broken, step)
        runs.go(broken, attempt=2)
        assert runs.outcome(broken) == expected, f"killed at step {step}"


def test_a_round_of_a_committee_opens_no_second_result(tmp_path: Path) -> None:
    """Killed when the result is out; after that, another client drops out."""
    runs = Runs(tmp_path, 7, **COMMITTEE)
    whole, broken = runs.prepare("whole"), runs.prepare("broken")
    steps = runs.steps(whole)
    with pytest.MonkeyPatch.context() as patches:
        power = Power(patches, steps)

        def at_the_end(*arguments: Any) -> Any:
            power.fails_at = power.steps + 1
            power.step()

        patches.setattr("fedgrpo.federation.protocols.committee.server.read_result", at_the_end)
        with pytest.raises(KilledError):
            runs.go(broken, power=power)
    settings = runs.settings(broken)
    federation = Federation(
        settings, 7, drop=lambda stage, node: (stage, node) == ("train", 1007), run_id=2
    )
    context = Context(2, 1, {}, RecordDict(), settings.to_run_config())
    make_server_app(model=MODEL)(federation.grid, context)
    first, second = read_rows(broken)[1:]
    assert "refused, message: " in first.reason
    assert first.epsilon == read_rows(whole)[1].epsilon, "what may have come out is charged"
    assert (second.applied, second.finished) == (True, 6)
    assert verify(broken).aborted == 1


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 9))]
)
def test_any_number_of_kills_changes_nothing(tmp_path: Path, seed: int) -> None:
    """With an attacker that remembers, a client that drops out, and a trimmed mean."""
    runs, chance = Runs(tmp_path, 11, **WITH_FAULTS), random.Random(seed)
    whole, broken = runs.prepare("whole"), runs.prepare("broken")
    steps, kills = runs.steps(whole), 0
    while runs.killed(broken, chance.randrange(1, steps // 2), attempt=kills + 2):
        kills += 1
    assert kills > 3
    assert runs.outcome(broken) == runs.outcome(whole)


def test_the_same_secrets_give_the_same_run_and_others_another(tmp_path: Path) -> None:
    runs = Runs(tmp_path, 6, **CLIENT_NOISE)
    first, second, other = (runs.prepare(name) for name in ("first", "second", "other"))
    (other / SECRET).write_bytes(bytes(range(32)))
    for number, directory in enumerate((first, second, other)):
        runs.go(directory, attempt=number + 1)
    assert runs.outcome(first) == runs.outcome(second)
    assert runs.outcome(first)["vector"] != runs.outcome(other)["vector"]
    assert runs.outcome(first)["ledger"] != runs.outcome(other)["ledger"]


def test_every_run_draws_secrets_of_its_own(tmp_path: Path) -> None:
    runs = Runs(tmp_path, 6, **CLIENT_NOISE)
    for name in ("one", "two"):
        runs.go(tmp_path / name)
    found = [path.read_bytes() for path in tmp_path.rglob("*.secret")]
    assert len(set(found)) == len(found) == 2 * 7
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.rglob("*.secret"))
    assert runs.outcome(tmp_path / "one")["vector"] != runs.outcome(tmp_path / "two")["vector"]


def test_the_order_in_which_nodes_train_changes_nothing(tmp_path: Path) -> None:
    """Ids decide the order of messages; each attempt has others."""
    runs = Runs(tmp_path, 9, rounds=2, privacy__unit="client", privacy__max_epsilon=1e6)
    outcomes = []
    for attempt in range(1, 5):
        directory = runs.prepare(str(attempt))
        runs.go(directory, attempt)
        outcomes.append(runs.outcome(directory))
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_a_node_that_lost_its_memory_rejoins(tmp_path: Path) -> None:
    """Its process was killed and started again, within one run of Flower's."""
    runs = Runs(tmp_path, 9, rounds=3, privacy__unit="client", privacy__max_epsilon=1e6)
    expected, directory = runs.prepare("whole"), runs.prepare("broken")
    runs.go(expected)
    settings = runs.settings(directory)
    federation = Federation(settings, 9)
    asked: list[int] = []

    def forget(stage: str, node: int) -> bool:
        if (stage, node) == ("train", 1004):
            asked.append(len(federation.releases))
            federation.grid.contexts[node].state = RecordDict()
        return False

    federation.drop = forget
    federation.__post_init__()
    make_server_app(model=MODEL)(
        federation.grid, Context(1, 1, {}, RecordDict(), settings.to_run_config())
    )
    assert len(asked) == 3
    assert runs.outcome(directory) == runs.outcome(expected)


def test_a_ledger_without_its_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    runs = Runs(tmp_path, 6, **SMALL, privacy__unit="none")
    directory = runs.prepare("run")
    runs.go(directory)
    before = (directory / "ledger.jsonl").read_bytes()
    (directory / FILE).unlink()
    with pytest.raises(LedgerError, match="a run whose checkpoint is gone"):
        runs.go(directory, attempt=2)
    assert (directory / "ledger.jsonl").read_bytes() == before


def test_two_servers_never_share_a_directory(tmp_path: Path) -> None:
    """One that lost its connection may live when the run is submitted again."""
    runs = Runs(tmp_path, 6, **SMALL, privacy__unit="none")
    directory = runs.prepare("run")
    runs.go(directory)
    before = {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    with (
        alone(directory, SERVER_LOCK, cure=""),
        pytest.raises(RunError, match="is in use by process"),
    ):
        runs.go(directory, attempt=2)
    assert {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()} == before


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    runs = Runs(tmp_path, 6, **SMALL, privacy__unit="none")
    directory = runs.prepare("run")
    (directory / SECRET).chmod(0o644)
    with pytest.raises(RunError, match="other users may read or write the secret"):
        runs.go(directory)


def test_every_round_has_its_entry_completed_or_not(tmp_path: Path) -> None:
    runs = Runs(tmp_path, 6, **SMALL | {"rounds": 3}, privacy__unit="none")
    directory = runs.prepare("run")
    settings = runs.settings(directory)
    federation = Federation(settings, 6, drop=lambda stage, node: (stage, node) == ("mask", 1001))
    rounds: list[int] = []

    def drop(stage: str, node: int) -> bool:
        if (stage, node) == ("train", 1001):
            rounds.append(1)
        return stage == "train" and len(rounds) == 2 and node == 1002

    federation.drop = drop
    federation.__post_init__()
    make_server_app(model=MODEL)(
        federation.grid, Context(1, 1, {}, RecordDict(), settings.to_run_config())
    )
    verdict = verify(directory)
    assert (verdict.rounds, verdict.aborted, verdict.ended) == (3, 1, True)
    entries = [json.loads(line)["entry"] for line in (directory / "ledger.jsonl").open()]
    aborted = entries[2]
    assert aborted["aborted"].startswith("5 of 6 clients finished, 6 are needed")
    assert (aborted["cohort"], aborted["finished"], aborted["commitments"]) == (6, 0, [])
    assert aborted["result"] == aborted["adapter"] != entries[3]["result"]
    assert len(set(entries[1]["commitments"])) == 6


def test_the_final_adapter_is_the_one_in_the_ledger(tmp_path: Path) -> None:
    runs = Runs(tmp_path, 6, **SMALL, privacy__unit="none")
    directory = runs.prepare("run")
    runs.go(directory)
    saved = directory / ADAPTER / SAVED
    vector = np.load(saved)
    vector[0] = np.nextafter(vector[0], np.float32(1))
    np.save(saved, vector)
    with pytest.raises(LedgerError, match=r"adapter/adapter\.npy is not the file"):
        verify(directory)
