"""Units: systemd takes them whatever folders are called, and they let a node do what it must."""

from __future__ import annotations

import asyncio
import configparser
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from fedgrpo.federation.deployment.operator.federation_file import FederationFile
from fedgrpo.federation.deployment.operator.founding import SERVICE, found
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.deployment.units import Service, resolvers, telling, unit, user_unit
from fedgrpo.federation.deployment.units.reach import addresses_of

ANALYSE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYSE is None, reason="systemd-analyze is not installed")
REACH = ["192.0.2.7", "2001:db8::53"]


@pytest.fixture(autouse=True)
def an_ordinary_user(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "games")


def service(folder):
    """A site's, with everything that a unit can say."""
    return Service(
        "fedgrpo site a", ["node", str(folder / "site.toml")], Path("/"), [folder],
        reads=[folder / "prompts.jsonl"], keys={"key": folder / "node.key"}, reach=REACH,
        memory=3 * 2**30 + 1,
    )  # fmt: skip


def read(text):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(text)
    return unit["Service"]


@needs_systemd
@pytest.mark.parametrize("name", ["federation", 'a "b" 100% $HOME'])
@pytest.mark.parametrize("written", [unit, user_unit])
def test_systemd_takes_the_units_and_finds_those_of_root_narrow(tmp_path, name, written):
    folder = tmp_path / name
    folder.mkdir()
    file = tmp_path / "fedgrpo-node.service"
    file.write_text(written(service(folder), file))
    assert file.name not in analysed("verify", file).stderr
    if written is unit:
        assert exposure(file) <= 3.0


@needs_systemd
def test_systemd_finds_the_operators_unit_narrow(tmp_path):
    found(tmp_path / "federation", "fed.example", 8443, public=None)
    file = tmp_path / "federation" / SERVICE
    assert file.name not in analysed("verify", file).stderr
    assert exposure(file) <= 3.0


def analysed(*words):
    return subprocess.run(
        [ANALYSE, "--no-pager", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def exposure(file):
    said = analysed("security", "--offline=yes", file).stdout
    return float(said.rpartition(f"{file.name}: ")[2].split()[0])


def test_a_node_speaks_to_the_server_the_committee_and_the_resolver_alone():
    said = read(unit(service(Path("/srv/a")), Path("/srv/a/x.service")))
    assert said["IPAddressDeny"] == "any"
    assert said["IPAddressAllow"].split() == ["localhost", *REACH]
    assert "HF_HUB_OFFLINE=1" in said["Environment"]


def test_a_node_is_always_started_again_and_one_that_hangs_is_killed():
    for written in (unit, user_unit):
        said = read(written(service(Path("/srv/a")), Path("/srv/a/x.service")))
        assert (said["Restart"], said["RestartSec"], said["OOMPolicy"]) == (
            "always",
            "15",
            "continue",
        )
        assert (said["Type"], said["NoNewPrivileges"]) == ("notify", "yes")
        assert 0 < int(said["WatchdogSec"]) <= 120
        assert said["MemoryMax"] == f"{3 * 1024 + 1}M"


def test_a_unit_of_root_guards_files_and_keys():
    said = read(unit(service(Path("/srv/a")), Path("/srv/a/x.service")))
    assert said["User"] == "games"
    assert (said["ProtectSystem"], said["ReadWritePaths"]) == ("strict", '"/srv/a"')
    assert said["ReadOnlyPaths"] == '"-/srv/a/prompts.jsonl"'
    assert said["LoadCredential"] == "key:/srv/a/node.key"
    assert said["InaccessiblePaths"] == '"-/srv/a/node.key"'
    kept = read(unit(service(Path("/var/lib/fedgrpo/a")), Path("x.service")))
    assert kept["StateDirectory"] == '"fedgrpo/a"'
    assert "ReadWritePaths" not in kept


def test_a_service_finds_its_keys_copies(tmp_path, monkeypatch):
    site = tmp_path / "site.toml"
    site.write_text('server = "fed.example:8443"\nca = "ca.crt"\nkey = "node.key"\n')
    assert SiteFile.read(site).key == str(tmp_path / "node.key")
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "key").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(copies))
    read = SiteFile.read(site)
    assert (read.key, read.committee_key) == (str(copies / "key"), "")
    found(tmp_path / "federation", "fed.example", 8443, public=None)
    assert FederationFile.read(tmp_path / "federation").key == str(copies / "key")


def test_places_are_known_by_their_addresses(tmp_path):
    assert addresses_of(["127.0.0.1:8443", "[::1]:7443", "127.0.0.1:1"]) == ["127.0.0.1", "::1"]
    assert addresses_of(["nowhere.invalid:8443"]) == []
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 192.0.2.1\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n")
    assert resolvers(file) == ["192.0.2.53", "fe80::1"]
    assert resolvers(tmp_path / "none") == []


def test_systemd_hears_that_a_process_has_started_and_is_well(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
        here.bind(str(tmp_path / "notify"))
        here.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000")

        async def live():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(telling.keep_telling(), 0.1)

        asyncio.run(live())
        heard = [here.recv(64) for _ in range(4)]
    assert heard == [telling.READY, *[telling.WELL] * 3]


def test_without_systemd_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    telling.say(telling.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    telling.say(telling.READY)
    assert telling.pause_s() > 0
