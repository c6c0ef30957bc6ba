"""A run that was killed, anywhere and any number of times, ends as one that never was."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedgrpo.federation import make_server_app
from fedgrpo.federation.protocols.committee.sitting import Sitting
from fedgrpo.federation.server.app import ADAPTER, Model
from fedgrpo.federation.server.checkpoint import FILE, load_checkpoint
from fedgrpo.federation.state.node_store import SECRET as NODE_SECRET
from fedgrpo.ground.errors import LedgerError, RunError
from fedgrpo.ground.run_directory import NODES, SECRET, SERVER_LOCK, alone
from fedgrpo.ledger import verify
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.settings import Settings
from tests.federation.federation import FakeEvaluator, Federation, make_adapter, make_settings
from tests.federation.kills import KilledError, Power
from tests.federation.server.test_app import SAVED, save

MODEL = Model(lambda settings: make_adapter(), lambda settings: FakeEvaluator(), save)

SMALL = {
    "rounds": 2,
    "robust__rule": "mean",
    "robust__trim": 0,
    "federation__min_clients": 6,
    "server__optimiser": "fedadam",
    "privacy__max_epsilon": 1e6,
    "evaluation__every": 2,
}
CLIENT_NOISE = SMALL | {"privacy__unit": "client", "privacy__adaptive": True}
SERVER_NOISE = SMALL | {"privacy__unit": "prompt", "privacy__noise": "server"}
COMMITTEE = SERVER_NOISE | {
    "aggregation__protocol": "committee",
    "robust__rule": "trimmed_mean",
    "robust__trim": 1,
}
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


class Runs:
    """Runs of one kind, all with the same secrets, each in a directory of its own."""

    def __init__(self, folder: Path, nodes: int, **changed: Any) -> None:
        self.folder, self.nodes, self.changed = folder, nodes, changed

    def prepare(self, name: str) -> Path:
        """Make a directory in which all secrets are there before the run begins."""
        directory = self.folder / name
        secrets = [directory / SECRET]
        secrets += [directory / NODES / str(i) / NODE_SECRET for i in range(self.nodes)]
        for number, path in enumerate(secrets):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(bytes([number]) * 32)
        return directory

    def settings(self, directory: Path) -> Settings:
        return make_settings(run__directory=str(directory), **self.changed)

    def go(self, directory: Path, attempt: int = 1, power: Power | None = None) -> None:
        """Start the server with new nodes, as Flower's simulation does: their ids are new too."""
        ids = random.Random(attempt).sample(range(10**6), self.nodes)

        def drop(stage: str, node: int) -> bool:
            if power:
                power.step()
            return False

        def tamper(stage: str, node: int, reply: Any) -> Any:
            if power:
                power.step()
            return reply

        settings = self.settings(directory)
        federation = Federation(settings, ids, drop=drop, tamper=tamper, run_id=attempt)
        context = Context(attempt, 1, {}, RecordDict(), settings.to_run_config())
        make_server_app(model=MODEL)(federation.grid, context)

    def killed(self, directory: Path, fails_at: int, attempt: int = 1) -> bool:
        """Go on, and whether a kill at that step came before the end."""
        with pytest.MonkeyPatch.context() as patches:
            power = Power(patches, fails_at)
            try:
                self.go(directory, attempt, power)
            except KilledError:
                return True
        return False

    def steps(self, directory: Path) -> int:
        """Run without a kill and count the steps."""
        with pytest.MonkeyPatch.context() as patches:
            power = Power(patches)
            self.go(directory, power=power)
        return power.steps

    def outcome(self, directory: Path) -> dict[str, Any]:
        """Everything that a run has come to, wall times apart."""
        stored = load_checkpoint(directory / FILE, self.settings(directory).fingerprint())
        summary = read_summary(directory)
        assert stored is not None
        assert summary is not None
        return {
            "adapter": (directory / ADAPTER / SAVED).read_bytes(),
            "ledger": (directory / "ledger.jsonl").read_text(),
            "progress": stored.state.progress,
            "vector": stored.state.adapter.vector.tobytes(),
            "optimiser": stored.state.optimiser.first.tobytes(),
            "rows": [replace(row, seconds={}) for row in read_rows(directory)],
            "summary": replace(summary, wall_s=0.0, overhead_share=0.0),
        }


def untidy(directory: Path) -> list[str]:
    return [path.name for path in directory.glob(".*.tmp")]


@pytest.mark.parametrize("kind", [CLIENT_NOISE, SERVER_NOISE], ids=["client", "server"])
def test_a_kill_at_any_step_changes_nothing(tmp_path: Path, kind: dict[str, Any]) -> None:
    runs = Runs(tmp_path, 6, **kind)
    whole = runs.prepare("whole")
    steps = runs.steps(whole)
    expected = runs.outcome(whole)
    assert verify(whole).ended
    assert steps > 200, "in both kinds together, more than 400 kills"
    for step in range(1, steps + 1):
        broken = runs.prepare(f"broken-{step}")
        assert runs.killed(broken, step)
        if not (broken / "summary.json").exists():
            runs.go(broken, attempt=2)
            assert not untidy(broken)
        assert runs.outcome(broken) == expected, f"killed at step {step}"


@pytest.mark.parametrize("share", range(4))
def test_a_kill_in_a_round_of_a_committee_changes_nothing(tmp_path: Path, share: int) -> None:
    """Members begin anew with other masks, and open the same. Forty places of some 700."""
    runs = Runs(tmp_path, 6, **COMMITTEE)
    whole = runs.prepare("whole")
    steps, expected = runs.steps(whole), runs.outcome(whole)
    assert verify(whole).ended
    for step in sorted(random.Random(share).sample(range(1, steps + 1), 10)):
        broken = runs.prepare(f"broken-{step}")
        assert runs.killed(broken, step)
        if not (broken / "summary.json").exists():
            runs.go(broken, attempt=2)
        assert verify(broken).ended
        assert runs.outcome(broken) == expected, f"killed at step {step}"


def test_a_kill_while_members_toss_keys_changes_nothing(tmp_path: Path) -> None:
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
    for step in spans[0][::7]:
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


@pytest.mark.parametrize("seed", range(4))
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
