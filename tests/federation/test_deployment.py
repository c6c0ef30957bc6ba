"""A real federation on loopback: SuperLink, SuperNodes, and a process for every message."""

from __future__ import annotations

import pytest

from fedgrpo.federation.simulation.app_bundle import stage_app, to_toml
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.site import SpendingFile
from tests.federation.deployed import (
    CONFIG,
    PATIENCE_S,
    POLICY,
    ROOT,
    Processes,
    answers_after,
    check_prompts,
    environment,
    follow,
    tail,
    write_prompts,
)


@pytest.mark.flower
@pytest.mark.timeout(PATIENCE_S + 120)
def test_a_superlink_and_three_supernodes_complete_a_run(tmp_path):
    home, logs, run_dir = tmp_path / "home", tmp_path / "logs", tmp_path / "run"
    for directory in (home, logs):
        directory.mkdir()
    bundle = stage_app(ROOT, tmp_path / "fedgrpo-app")
    config = tmp_path / "config.toml"
    config.write_text(to_toml(CONFIG | {"run.directory": str(run_dir)}))
    port, *node_ports = free_ports(4)
    answer_after_s = answers_after(3)
    policy = f"answer_after_s = {answer_after_s}.0\n{POLICY}"
    loopback = ("--host", "127.0.0.1")
    with Processes(environment(home, port), logs) as processes:
        processes.start(
            "superlink", "flower-superlink", "--insecure", *loopback, "--port", port,
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        for number, node_port in enumerate(node_ports):
            prompts = tmp_path / f"site-{number}" / "prompts.jsonl"
            prompts.parent.mkdir()
            write_prompts(prompts, number)
            prompts.with_name("policy.toml").write_text(policy)
            check_prompts(prompts)
            processes.start(
                f"node-{number}", "flower-supernode", "--insecure", *loopback, "--port", node_port,
                "--superlink", f"127.0.0.1:{port}", "--node-config", f'prompts="{prompts}"',
            )  # fmt: skip
        status = follow(processes, bundle, config)
        assert status == "finished:completed", tail(logs)
    (before, row) = read_rows(run_dir)
    assert answer_after_s <= row.seconds["train"] < 240.0, tail(logs)
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
