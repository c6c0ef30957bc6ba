"""Whatever process is killed, a run comes to its end by itself, and each site pays for each round
once.
"""

from __future__ import annotations

import random
import time
from functools import partial

import psutil
import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.report.reader import read_rows
from fedgrpo.site import SpendingFile
from tests.federation.deployed import (
    CONFIG,
    PATIENCE_S,
    Federation,
    check_prompts,
)
from tests.federation.deployed_processes import (
    EXECUTOR,
    MODEL,
    SUPERLINK,
    SUPERNODE,
    known_until,
    running,
    until_back,
)
from tests.federation.deployment.operated import end, until

OPEN = """
prompts_declared = 40
longest_prompt_tokens = 16
models = ["tiny"]
rewards = ["exact_match"]
without_privacy = true
metrics_without_noise = true
"""
"""Of sites with public prompts: answers leave as soon as they are there."""


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S + 300)
def test_a_run_loses_no_site_to_kills_of_executors_and_model_processes(tmp_path):
    """An executor and a model process while nothing is asked of them, and one with an order open.
    No site has a model process before it is asked to train.
    """
    run_dir = tmp_path / "run"
    with Federation(tmp_path) as federation:
        sites = [federation.site(OPEN) for _ in range(3)]
        for site in sites:
            check_prompts(site.prompts)
            site.start()
        first = until(lambda: running(sites[0].process, EXECUTOR), "an executor")
        first.kill()
        until(lambda: running(sites[0].process, EXECUTOR, [first]), "another executor")
        assert not any(running(site.process, MODEL) for site in sites)
        config = CONFIG | {"privacy.unit": "none", "rounds": 2, "run.directory": str(run_dir)}
        run_id = federation.submit(config)
        until(lambda: running(sites[1].process, MODEL), "a model process").kill()
        until(lambda: run_dir.exists() and len(read_rows(run_dir)) > 1, "the first round")
        if idle := running(sites[2].process, MODEL):
            idle.kill()
        assert federation.end_of(run_id) == "finished:completed", federation.logs()
        logs = federation.logs()
    (_, *rows) = read_rows(run_dir)
    assert [(row.finished, row.applied) for row in rows] == [(3, True)] * 2, logs
    for site in sites:
        spent = SpendingFile(site.folder / "spent.jsonl").read().entries
        assert [entry.round for entry in spent] == [1, 2], logs


KILLS = {
    "SuperNode": 2,
    "executor": 3,
    "message's process": 3,
    "model process": 3,
    "site's supervisor": 2,
    "SuperLink": 2,
    "server's executor": 1,
    "ServerApp": 2,
    "gateway": 2,
}
"""Twenty of them, each kind at least once."""
AWAY = ("SuperNode", "site's supervisor")
"""After which the server still believes in the process that is gone."""
BACK_S, BACK_AT_ONCE_S = 75.0, 5.0
ROUNDS, SITES = 10, 4
"""A site whose message's process is killed misses that round; three of four make it."""


class Killing:
    """Kills of one kind at a time, and what whoever starts the services does then."""

    def __init__(self, federation, seed):
        self._federation, self._chance = federation, random.Random(seed)

    def kill(self, kind):
        """Kill a process of that kind; returns the seconds after which its site was back."""
        site = self._chance.choice(self._federation.sites)
        server = self._federation.server
        started = site.process if kind in SITE else server.process
        module, forked = {**SITE, **SERVER}[kind]
        if module:
            found = until(lambda: running(started, module, forked=forked), f"a {kind}")
            victim = psutil.Process(found.pid)
        else:
            victim = psutil.Process(started.pid)
        there = psutil.Process(started.pid).children(recursive=True)
        victim.kill()
        before = known_until(self._federation, site)
        if kind == "site's supervisor":
            end(site.process)
            site.start()
        if kind == "gateway":
            end(server.process)
            server.__enter__()
        if kind in AWAY:
            return until_back(self._federation, site, before, 4 * BACK_S)
        began = time.monotonic()
        if module and not forked and kind != "model process":
            until(lambda: running(started, module, there), f"another {kind}")
        return time.monotonic() - began


SITE = {
    "SuperNode": (SUPERNODE, False),
    "executor": (EXECUTOR, False),
    "message's process": (EXECUTOR, True),
    "model process": (MODEL, False),
    "site's supervisor": ("", False),
}
SERVER = {
    "SuperLink": (SUPERLINK, False),
    "server's executor": (EXECUTOR, False),
    "ServerApp": (EXECUTOR, True),
    "gateway": ("", False),
}


def _has(run_dir, rows):
    return len(read_rows(run_dir)) > rows


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_kills_in_ten_rounds_end_as_a_run_without_and_are_paid_once(tmp_path):
    kinds = [kind for kind, often in KILLS.items() for _ in range(often)]
    random.Random(0).shuffle(kinds)
    run_dir, took = tmp_path / "run", []
    with Federation(tmp_path) as federation:
        for _ in range(SITES):
            site = federation.site(OPEN)
            check_prompts(site.prompts)
            site.start()
        config = CONFIG | {"rounds": ROUNDS, "privacy.unit": "none", "federation.wait_s": 600.0}
        federation.wish(config, run_dir)
        until(lambda: run_dir.exists() and read_rows(run_dir), "the run", PATIENCE_S)
        killing = Killing(federation, seed=0)
        for number, kind in enumerate(kinds):
            rows = len(read_rows(run_dir))
            took.append((kind, round(killing.kill(kind), 1)))
            print(f"round {rows}:", *took[-1], "s", flush=True)
            # Of two sites that are away at once the round would know: three in a row end the run.
            wanted = rows if kind in AWAY else number * ROUNDS // len(kinds)
            until(partial(_has, run_dir, min(wanted, ROUNDS - 1)), f"{took}", PATIENCE_S)
        until((run_dir / "summary.json").exists, f"the end: {federation.logs()}", 2400)
        logs = federation.logs()
    (_, *rows) = read_rows(run_dir)
    assert [row.round for row in rows] == [*range(1, ROUNDS + 1)], logs
    assert sum(row.applied for row in rows) >= ROUNDS // 2, logs
    verified = CliRunner().invoke(app, ["ledger", "verify", str(run_dir)])
    assert verified.exit_code == 0, verified.output
    accounts = [SpendingFile(site.folder / "spent.jsonl").read() for site in federation.sites]
    for account in accounts:
        paid = [entry.round for entry in account.entries]
        assert sorted(set(paid)) == paid, "each round once, and in their order"
        assert set(paid) <= {row.round for row in rows}
    # Whatever was killed, nobody's release is in a result that it did not pay for.
    for row in rows:
        paid = sum(entry.round == row.round for a in accounts for entry in a.entries)
        assert paid >= row.finished, logs
    assert max(seconds for kind, seconds in took if kind in AWAY) <= BACK_S, took
    assert max(seconds for kind, seconds in took if kind == "executor") <= BACK_AT_ONCE_S, took
