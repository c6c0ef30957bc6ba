"""A deployed committee behind the gateway: nodes with keys of their own, linked directly by TLS.

In one run, because starting one takes most of the time: a round in whose middle one of four
machines goes, and one in which the fifth that is listed takes its seat.
"""

from __future__ import annotations

import time

import psutil
import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.ledger import FILE, RoundEntry, replay
from fedgrpo.report.reader import read_rows
from tests.federation.deployed import (
    CONFIG,
    PATIENCE_S,
    POLICY,
    Federation,
    answers_after,
    check_prompts,
)

NODES = 6
LISTED = 5
COMMITTEE = {
    "rounds": 2,
    "aggregation.protocol": "committee",
    "privacy.noise": "server",
    "robust.rule": "trimmed_mean",
    "robust.trim": 1,
    "federation.min_clients": NODES - 1,
}
ALLOWED = 'noise_by = ["committee"]\nprotocols = ["committee"]\n'


def command(*words):
    """Run one of the commands of the documentation, and return what it prints."""
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


def kill_at_work(node, port, run_dir):
    """Kill a node and its processes when its peers are connected in the first round."""
    wait_until(lambda: len(read_rows(run_dir)) == 1)
    wait_until(lambda: connected(port) == 3)
    for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]:
        process.kill()


def wait_until(reached, every_s=0.02):
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(every_s)


def connected(port):
    """Count what is connected to a port of this machine."""
    links = (link for link in psutil.net_connections("tcp4") if link.laddr.port == port)
    return sum(link.status == psutil.CONN_ESTABLISHED for link in links)


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S + 120)
def test_a_listed_node_takes_the_seat_of_one_that_was_killed(tmp_path):
    run_dir, ports = tmp_path / "run", free_ports(LISTED)
    keys = [
        command("committee-key", tmp_path / f"member-{number}.key").split()[0]
        for number in range(LISTED)
    ]
    agreed = f"committee = {keys}\nanswer_after_s = {answers_after(NODES + 3)}.0\n"
    members = [f"{key}@127.0.0.1:{port}" for key, port in zip(keys, ports, strict=True)]
    named = {"aggregation.committee": ",".join(members), "run.directory": str(run_dir)}
    with Federation(tmp_path) as federation:
        for number in range(NODES):
            key = f'committee_key = "../member-{number}.key"\n' if number < LISTED else ""
            site = federation.site(ALLOWED + agreed + POLICY, key)
            check_prompts(site.prompts)
            site.start()
        run_id = federation.submit(CONFIG | COMMITTEE | named)
        kill_at_work(federation.sites[3].process, ports[3], run_dir)
        assert federation.end_of(run_id) == "finished:completed", federation.logs()
        command("ledger", "verify", run_dir)
        logs = federation.logs()
    _, *rows = read_rows(run_dir)
    assert [row.applied for row in rows] == [False, True], logs
    assert [row.finished for row in rows] == [0, NODES - 1]
    entries = replay((run_dir / FILE).read_bytes()).entries
    computed = [entry.committee for entry in entries if isinstance(entry, RoundEntry)]
    signing = tuple(name[:64] for name in members)
    assert computed == [(), (*signing[:3], signing[4])], logs
