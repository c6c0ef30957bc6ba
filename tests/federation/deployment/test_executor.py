"""The executor ends with who started it, whatever else does not answer; the supervisor is light."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from fedgrpo.federation.deployment import children
from fedgrpo.federation.deployment.executor.apps import CLIENT
from fedgrpo.federation.deployment.site.node import EXECUTOR
from tests.federation.deployment.operated import environment


@pytest.mark.slow
def test_an_executor_that_nobody_answers_ends_with_who_started_it(tmp_path):
    runtime = {"address": str(tmp_path / "node"), "root": "", "bearer": "", "secret": "s" * 32}
    told = {"runtime": runtime, "kind": "flwr-clientapp", "app": CLIENT, "made_of": []}
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(runtime["address"])
        node.listen()
        process = children.start(EXECUTOR, told)
        asked, _ = node.accept()
        asked.close()
    process.stdin.close()
    assert process.wait(60) == 0


HEAVY = ("flwr", "numpy", "torch", "httpx", "pyarrow", "scipy")


def test_a_nodes_supervisor_keeps_nothing_that_its_checks_need():
    """It stays for as long as the node does: what is imported in it is held for weeks."""
    names = "fedgrpo.cli.app", "fedgrpo.federation.deployment.site.node"
    imports = f"import sys, {', '.join(names)}"
    command = f"{imports}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", command], env=environment(), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "[]"
