"""One server for many checks: it takes seconds to start, and no check may harm it."""

from __future__ import annotations

import pytest

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
