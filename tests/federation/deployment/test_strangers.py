"""People without credentials: on the network, on the operator's machine, on a site's machine.

The attacks are those that once took every hospital's first prompt and a site's unmasked release.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from tests.federation.deployed import POLICY, Site, check_prompts
from tests.federation.deployment import local_user
from tests.federation.deployment.operated import environment, until

pytestmark = [pytest.mark.flower, pytest.mark.timeout(400)]

NOBODY = 65534


@pytest.fixture(scope="module")
def node(server, tmp_path_factory):
    """A site's node, at work."""
    folder = tmp_path_factory.mktemp("sites") / "site"
    site = Site(server, folder, f"answer_after_s = 600.0\n{POLICY}", seed=0)
    check_prompts(site.prompts)
    site.start()
    until(lambda: "SuperNode ID" in site.log.read_text(), f"the node: {site.log}")
    yield site
    site.end()


def family(process):
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


def listened(process):
    """Ports of the network at which a process or a child of it listens."""
    found = (link for one in family(process) for link in one.net_connections("inet"))
    return sorted({link.laddr.port for link in found if link.status == psutil.CONN_LISTEN})


def socket_of(node):
    """Where a node's SuperNode waits for its executor."""
    links = (link for one in family(node.process) for link in one.net_connections("unix"))
    (path,) = {str(link.laddr) for link in links if str(link.laddr).endswith("/node")}
    return Path(path)


def test_a_site_listens_at_no_port(node):
    assert len(family(node.process)) >= 3
    assert listened(node.process) == []


def test_no_socket_of_either_side_is_open_to_other_users(server, node):
    """Linux's abstract sockets have no permissions, and those of files have their folders'."""
    links = [
        str(link.laddr)
        for process in (server.process, node.process)
        for one in family(process)
        for link in one.net_connections("unix")
        if link.laddr
    ]
    assert links
    assert all(path.startswith("/") for path in links)
    assert {stat.S_IMODE(Path(path).parent.stat().st_mode) & 0o077 for path in links} == {0}


def test_a_server_listens_at_its_own_port_and_one_of_loopback(server):
    ports = listened(server.process)
    assert server.port in ports
    assert len(ports) == 2
    addresses = {
        link.laddr.ip
        for one in family(server.process)
        for link in one.net_connections("inet")
        if link.status == psutil.CONN_LISTEN and link.laddr.port != server.port
    }
    assert addresses == {"127.0.0.1"}


def test_another_user_gets_nothing_on_either_machine(server, node):
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    folders = [server.state, server.state / "flwr", node.folder / ".prompts.jsonl.fedgrpo"]
    folders.append(socket_of(node).parent)
    pids = [one.pid for process in (server.process, node.process) for one in family(process)]
    ports = listened(server.process)
    done = subprocess.run(
        [
            sys.executable, "-P", local_user.__file__, str(NOBODY), ",".join(map(str, ports)),
            ",".join(map(str, folders)), ",".join(map(str, pids)),
        ],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_without_the_secret_the_superlink_says_nothing_to_its_own_machine(server):
    address, bearer = server.inner
    with httpx.Client(verify=False, trust_env=False) as client:
        wrong = ["Bearer", bearer, f"Bearer {bearer}x", f"bearer {bearer}", "Basic x"]
        shown = [{}, *({"authorization": value} for value in wrong)]
        for path in ("/", "/health", "/docs", "/openapi.json", "/v1/fleet/pull-messages"):
            for headers in shown:
                answer = client.get(f"https://{address}{path}", headers=headers)
                assert answer.status_code == 401
        twice = [("authorization", f"Bearer {bearer}")] * 2
        assert client.get(f"https://{address}/health", headers=twice).status_code == 401
        right = {"authorization": f"Bearer {bearer}"}
        assert client.get(f"https://{address}/health", headers=right).status_code == 200


def test_secrets_lie_in_files_of_their_owner(server, node):
    folders = [server.state, *(path for path in server.state.rglob("*") if path.is_dir())]
    files = [path for path in server.state.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folders} == {0}
    assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    _, bearer = server.inner
    assert bearer not in server.log.read_text()


def test_flowers_executor_without_the_secret_takes_no_task_of_a_node(node):
    """As `local_user.py` did it, by a user who can even reach the socket."""
    path = socket_of(node)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    client = RuntimeHttpClient.from_server_address(
        server_address="node", insecure=True, root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec")],
    )  # fmt: skip
    client._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)))
    with pytest.raises(httpx.HTTPStatusError) as raised:
        client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
    assert raised.value.response.status_code == 401


def test_a_stranger_cannot_submit_an_app(server, tmp_path):
    """As `stranger-app/` did it: with a copy of the public certificate and Flower's own command."""
    home, bundle = tmp_path / "home", tmp_path / "stranger-app"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "s"\n[superlink.s]\naddress = "localhost:{server.port}"\n'
        f'root-certificates = "{server.ca}"\n'
    )
    (bundle / "stranger").mkdir(parents=True)
    (bundle / "stranger" / "__init__.py").write_text("")
    for side, kind in (("client", "ClientApp"), ("server", "ServerApp")):
        code = f"from flwr.{side}app import {kind}\napp = {kind}()\n"
        (bundle / "stranger" / f"{side}.py").write_text(code)
    (bundle / "LICENSE").write_text("none\n")
    (bundle / "pyproject.toml").write_text(
        '[project]\nname = "stranger-app"\nversion = "0.1.0"\nlicense = { file = "LICENSE" }\n'
        'dependencies = ["flwr>=1.41"]\n[tool.flwr.app]\npublisher = "nobody"\n'
        '[tool.flwr.app.components]\nserverapp = "stranger.server:app"\n'
        'clientapp = "stranger.client:app"\n[tool.flwr.app.config]\nx = 1\n'
    )
    env = environment() | {
        "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from flwr.cli.app import app; app()", "run", str(bundle), "s"],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "404" in said, said
    assert "Successfully" not in said
    assert "StartRun" not in server.log.read_text()
