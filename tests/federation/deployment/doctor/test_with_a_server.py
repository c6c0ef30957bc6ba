"""What only the real server can tell: whether it knows a key, and still believes in its node."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.ground.run_files import alone
from fedgrpo.site.node_folder import RUNNING, folder_beside
from tests.federation.deployment.doctor.surrounded import found, site_folder
from tests.federation.deployment.operated import until

pytestmark = [pytest.mark.flower, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def place(folder, server, key):
    """A site with this key."""
    file = site_folder(folder, server.port, server.ca)
    (folder / "node.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    return lambda: Surroundings.of(str(file))


def test_a_key_that_is_registered_and_one_that_is_not(server, site, tmp_path):
    known = place(tmp_path / "known", server, site[0])
    until(lambda: list(found(known(), 7)) == [""])
    stranger = place(tmp_path / "stranger", server, ec.generate_private_key(ec.SECP384R1()))
    said = found(stranger(), 7)["key-unregistered"]
    assert "ask the operator to confirm it" in said


def test_the_clock_is_held_against_the_real_server_s(server, site, tmp_path):
    here = place(tmp_path / "site", server, site[0])()
    assert list(found(here, 6)) == [""]
    early = replace(here, clock=lambda: time.time() - 4000)
    assert "4000" in found(early, 6)["clock-slow"].replace("3999", "4000")


def test_a_node_that_was_killed_is_believed_in_for_so_many_seconds(server, tmp_path):
    key, _ = server.register()
    here = place(tmp_path / "site", server, key)
    until(lambda: list(found(here(), 7)) == [""])
    asked = ActivateNodeRequest(
        public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30.0
    )
    assert server.fleet("activate-node", key, asked)[0] == 200
    said = until(lambda: found(here(), 7).get("node-believed"))
    seconds = float(said.partition(" s more")[0].rpartition("for ")[2])
    assert 30 < seconds <= 60
    folder = folder_beside(tmp_path / "site" / "prompts.jsonl")
    with alone(folder, RUNNING, cure="none"):
        assert list(found(here(), 7)) == [""]
