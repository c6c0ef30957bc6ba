"""Whole runs without a model, in directories of their own: started, killed, resumed, compared."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedgrpo.federation import make_server_app
from fedgrpo.federation.server.app import ADAPTER, Model
from fedgrpo.federation.server.checkpoint import FILE, load_checkpoint
from fedgrpo.federation.state.node_store import SECRET as NODE_SECRET
from fedgrpo.ground.run_files import NODES, SECRET
from fedgrpo.model.adapter import AdapterState
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.settings import Settings
from tests.federation.federation import FakeEvaluator, Federation, make_adapter, make_settings
from tests.federation.kills import KilledError, Power

SAVED = "adapter.npy"


def save(settings: Settings, adapter: AdapterState, directory: Path) -> None:
    """Leave an adapter's vector where a real model leaves its files."""
    directory.mkdir(exist_ok=True)
    np.save(directory / SAVED, adapter.vector)


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
MOMENTUM = CLIENT_NOISE | {"aggregation__protocol": "plain", "robust__momentum": 0.5}
SERVER_NOISE = SMALL | {"privacy__unit": "prompt", "privacy__noise": "server"}
COMMITTEE = SERVER_NOISE | {
    "aggregation__protocol": "committee",
    "robust__rule": "trimmed_mean",
    "robust__trim": 1,
}


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
            "rows": [replace(row, seconds={}, bytes={}) for row in read_rows(directory)],
            "summary": replace(summary, wall_s=0.0, overhead_share=0.0),
        }
