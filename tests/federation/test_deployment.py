"""A real federation on loopback, through the gateway: TLS, node keys, and sites' installed code."""

from __future__ import annotations

import psutil
import pytest

from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.site import SpendingFile
from tests.federation.deployed import (
    CONFIG,
    PATIENCE_S,
    POLICY,
    Federation,
    answers_after,
    check_prompts,
)


@pytest.mark.flower
@pytest.mark.timeout(PATIENCE_S + 120)
def test_a_server_and_three_sites_complete_a_run(tmp_path):
    run_dir = tmp_path / "run"
    answer_after_s = answers_after(3)
    with Federation(tmp_path) as federation:
        for _ in range(3):
            site = federation.site(f"answer_after_s = {answer_after_s}.0\n{POLICY}")
            check_prompts(site.prompts)
            site.start()
        bundle = hostile_bundle(federation)
        run_id = federation.submit(CONFIG | {"run.directory": str(run_dir)}, bundle)
        status = federation.end_of(run_id)
        logs = federation.logs()
        assert status == "finished:completed", logs
        assert not (tmp_path / "taken").exists(), "a site imported what came with the bundle"
        assert not listening(*(site.process for site in federation.sites))
    (before, row) = read_rows(run_dir)
    assert answer_after_s <= row.seconds["train"] < 300.0, logs
    assert before.round == 0
    assert row.applied, row.reason
    assert (row.finished, row.dropped, row.buckets) == (3, 0, 1)
    assert row.update_norm > 0
    assert row.epsilon > 0
    assert read_summary(run_dir).rounds == 1
    for number in range(3):
        (spent,) = SpendingFile(tmp_path / f"site-{number}" / "spent.jsonl").read().entries
        assert (spent.unit, spent.round, spent.noise_multiplier) == ("prompt", 1, 1.0)
    assert (run_dir / "adapter" / "adapter_config.json").exists()


def hostile_bundle(federation):
    """The operator's bundle, into which somebody has put code for sites and for the server."""
    bundle = federation.server.state / "fedgrpo-app"
    taken = f"open({str(federation.folder / 'taken')!r}, 'w').write('here')\napp = None\n"
    for side in ("clients", "server"):
        (bundle / side / "app.py").write_text(taken)
    return bundle


def listening(*processes):
    """Ports of any kind at which these processes, or their children, wait for somebody."""
    every = [child for p in processes for child in psutil.Process(p.pid).children(recursive=True)]
    links = [link for process in every for link in process.net_connections("inet")]
    return [link for link in links if link.status == psutil.CONN_LISTEN or not link.raddr]
