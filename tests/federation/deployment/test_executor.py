"""The executor ends with who started it, whatever else does not answer."""

from __future__ import annotations

import socket

import pytest

from fedgrpo.federation.deployment import children
from fedgrpo.federation.deployment.executor.apps import CLIENT
from fedgrpo.federation.deployment.site.node import EXECUTOR


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
