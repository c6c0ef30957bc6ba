"""A large adapter behind the gateway, and an app of a site's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.federation.deployed import CONFIG, POLICY, Federation, check_prompts
from tests.federation.deployment.heavy import BYTES

APPS = "tests.federation.deployment.heavy"


def peak(process):
    """Largest memory of a process since its start or :func:`forget_peak`, bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak(process):
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_100_mb_cross_the_gateway_in_bounded_memory_by_apps_that_each_side_names(tmp_path):
    """Each way; and what a site's app raises stays at the site."""
    arrived = tmp_path / "arrived"
    with Federation(tmp_path, "--app", f"{APPS}:server_app") as federation:
        site = federation.site(f"answer_after_s = 600.0\n{POLICY}", f'app = "{APPS}:client_app"\n')
        check_prompts(site.prompts)
        site.start()
        forget_peak(federation.server.process)
        before = peak(federation.server.process)
        run_id = federation.submit(CONFIG | {"run.directory": str(arrived)})
        assert federation.end_of(run_id) == "finished:completed", federation.logs()
        grown = peak(federation.server.process) - before
    assert arrived.read_text()
    print(f"gateway: {grown / 1e6:.0f} MB more for 2 x {BYTES / 1e6:.0f} MB")
    assert grown < 40e6
