"""A deployed committee: SuperNodes with keys of their own, linked directly by TLS on loopback.

In one run, because starting one takes most of the time: a round in whose middle one of four
machines goes, and one in which the fifth that is listed takes its seat.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from functools import partial

import psutil
import pytest

from fedgrpo.federation.protocols.committee.convening.identity import KEY_FILE
from fedgrpo.federation.simulation.app_bundle import stage_app, to_toml
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.ledger import FILE, RoundEntry, replay
from fedgrpo.report.reader import read_rows
from tests.federation.certificates import node_files, superlink_files
from tests.federation.deployed import (
    CONFIG,
    PATIENCE_S,
    POLICY,
    ROOT,
    Processes,
    answers_after,
    check_prompts,
    end_of,
    environment,
    patiently,
    submit,
    tail,
    write_prompts,
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


def command(processes, *words):
    """Run one of the commands of the documentation, and return what it prints."""
    executable = shutil.which(words[0], path=processes.env["PATH"])
    done = subprocess.run(
        [executable, *map(str, words[1:])],
        env=processes.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill_at_work(node, port, run_dir):
    """Kill a SuperNode and its processes when its peers are connected in the first round."""
    wait_until(lambda: len(read_rows(run_dir)) == 1)
    wait_until(lambda: connected(port) == 3)
    for process in [*psutil.Process(node.pid).children(recursive=True), node]:
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
def test_a_listed_supernode_takes_the_seat_of_one_that_was_killed(tmp_path):
    home, logs, run_dir = tmp_path / "home", tmp_path / "logs", tmp_path / "run"
    for directory in (home, logs):
        directory.mkdir()
    root, certificate, key = superlink_files(tmp_path)
    port, *ports = free_ports(1 + NODES + LISTED)
    env = environment(home, port, root)
    with Processes(env, logs) as processes:
        processes.start(
            "superlink", "flower-superlink", "--ssl-ca-certfile", root, "--ssl-certfile",
            certificate, "--ssl-keyfile", key, "--enable-supernode-auth", "--host", "127.0.0.1",
            "--port", port, "--disable-runtime-dependency-installation",
        )  # fmt: skip
        members = []
        for number in range(NODES):
            site = tmp_path / f"site-{number}"
            site.mkdir()
            write_prompts(site / "prompts.jsonl", number)
            config = f'prompts="{site / "prompts.jsonl"}"'
            if number < LISTED:
                keys = command(processes, "fedgrpo", "committee-key", site / "member.key").strip()
                members.append(f"{keys}@127.0.0.1:{ports[NODES + number]}")
                config += f' {KEY_FILE}="{site / "member.key"}"'
            private, public = node_files(site, "node")
            patiently(partial(processes.flwr, "supernode", "register", public, "lo"))
            processes.start(
                f"node-{number}", "flower-supernode", "--root-certificates", root, "--superlink",
                f"127.0.0.1:{port}", "--host", "127.0.0.1", "--port", ports[number],
                "--auth-supernode-private-key", private, "--node-config", config,
            )  # fmt: skip
        agreed = f"committee = {[name[:128] for name in members]}\n"
        agreed += f"answer_after_s = {answers_after(NODES)}.0\n"
        for number in range(NODES):
            (tmp_path / f"site-{number}" / "policy.toml").write_text(ALLOWED + agreed + POLICY)
            check_prompts(tmp_path / f"site-{number}" / "prompts.jsonl")
        named = {"aggregation.committee": ",".join(members), "run.directory": str(run_dir)}
        settings = tmp_path / "config.toml"
        settings.write_text(to_toml(CONFIG | COMMITTEE | named))
        app = stage_app(ROOT, tmp_path / "fedgrpo-app")
        run_id = submit(processes, app, settings)
        kill_at_work(processes.started[4], ports[NODES + 3], run_dir)
        assert end_of(processes, run_id) == "finished:completed", tail(logs)
        command(processes, "fedgrpo", "ledger", "verify", run_dir)
    _, *rows = read_rows(run_dir)
    assert [row.applied for row in rows] == [False, True], tail(logs)
    assert [row.finished for row in rows] == [0, NODES - 1]
    entries = replay((run_dir / FILE).read_bytes()).entries
    computed = [entry.committee for entry in entries if isinstance(entry, RoundEntry)]
    signing = tuple(name[:64] for name in members)
    assert computed == [(), (*signing[:3], signing[4])], tail(logs)
