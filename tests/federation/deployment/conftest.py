"""One server for many checks: it takes seconds to start, and no check may harm it."""

from __future__ import annotations

import logging

import pytest

from fedgrpo.federation.deployment.log.taking import FILE, FORMAT
from tests.federation.deployment.operated import Server


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("operator")) as server:
        yield server
        assert server.process.poll() is None, "a check ended the server"


@pytest.fixture(scope="package")
def site(server):
    """Key and id of a registered node."""
    return server.register()


@pytest.fixture(scope="package")
def other(server):
    """Another site's."""
    return server.register()


@pytest.fixture(autouse=True)
def quiet_log(monkeypatch):
    """What a command sets up for its process ends with the test: here it is one process for all."""
    for name in (FILE, FORMAT):
        monkeypatch.setenv(name, "")
    loggers = [
        logging.getLogger(name) for name in ("", "fedgrpo", "flwr", "uvicorn", "uvicorn.error")
    ]
    kept = [(each.handlers[:], each.filters[:], each.propagate, each.level) for each in loggers]
    yield
    for each, (handlers, filters, propagate, level) in zip(loggers, kept, strict=True):
        each.handlers[:], each.filters[:] = handlers, filters
        each.propagate = propagate
        each.setLevel(level)
