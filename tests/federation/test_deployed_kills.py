"""Sites whose processes are killed take part in every round, and pay for each once."""

from __future__ import annotations

import psutil
import pytest

from fedgrpo.report.reader import read_rows
from fedgrpo.site import SpendingFile
from tests.federation.deployed import CONFIG, PATIENCE_S, Federation, check_prompts
from tests.federation.deployment.operated import until

POLICY = """
prompts_declared = 40
longest_prompt_tokens = 16
models = ["tiny"]
rewards = ["exact_match"]
without_privacy = true
metrics_without_noise = true
"""
"""Of sites with public prompts: answers leave as soon as they are there."""
ROOM = "fedgrpo.federation.deployment"
EXECUTOR, MODEL = "executor.tasks", "executor.model_process"


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S + 300)
def test_a_run_loses_no_site_to_kills_of_executors_and_model_processes(tmp_path):
    """An executor and a model process while nothing is asked of them, and one with an order open.
    No site has a model process before it is asked to train.
    """
    run_dir = tmp_path / "run"
    with Federation(tmp_path) as federation:
        sites = [federation.site(POLICY) for _ in range(3)]
        for site in sites:
            check_prompts(site.prompts)
            site.start()
        first = until(lambda: running(sites[0], EXECUTOR), "an executor")
        first.kill()
        until(lambda: running(sites[0], EXECUTOR, but=first), "another executor")
        assert not any(running(site, MODEL) for site in sites)
        config = CONFIG | {"privacy.unit": "none", "rounds": 2, "run.directory": str(run_dir)}
        run_id = federation.submit(config)
        until(lambda: running(sites[1], MODEL), "a model process").kill()
        until(lambda: run_dir.exists() and len(read_rows(run_dir)) > 1, "the first round")
        if idle := running(sites[2], MODEL):
            idle.kill()
        assert federation.end_of(run_id) == "finished:completed", federation.logs()
        logs = federation.logs()
    (_, *rows) = read_rows(run_dir)
    assert [(row.finished, row.applied) for row in rows] == [(3, True)] * 2, logs
    for site in sites:
        spent = SpendingFile(site.folder / "spent.jsonl").read().entries
        assert [entry.round for entry in spent] == [1, 2], logs


def running(site, module, but=None):
    """A site's process that runs a module, or None."""
    node = psutil.Process(site.process.pid)
    for process in node.children(recursive=True):
        try:
            if process != but and process.cmdline()[2:] == [f"{ROOM}.{module}"]:
                return process
        except psutil.Error:
            continue
    return None
