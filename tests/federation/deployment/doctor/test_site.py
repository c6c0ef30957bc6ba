"""What lies on the site's machine: each thing seen wrong in a folder of its own, with its cure."""

from __future__ import annotations

import getpass
import json
import math
import os
import shutil
import socket
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedgrpo.federation.deployment.doctor.checks import agreed, prompts_and_policy, state_and_disk
from fedgrpo.federation.deployment.doctor.checks import committee as dialling
from fedgrpo.federation.deployment.doctor.examine import examine
from fedgrpo.federation.deployment.doctor.registry import CHECKS, as_json
from fedgrpo.federation.deployment.doctor.surroundings import Machine, Moment, Surroundings
from fedgrpo.federation.deployment.units import Service, unit
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.ground.machine import paid_cores, usable_cores
from fedgrpo.ground.run_files import alone
from fedgrpo.secure.committee import Identity
from fedgrpo.settings import Settings
from fedgrpo.site import Entry, SpendingFile
from fedgrpo.site.node_folder import RUNNING, folder_beside
from tests.federation.deployment.doctor.surrounded import AGREED, found, invitation, site_folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "site"


def here(folder, **keys):
    """A site whose settings are those that were agreed."""
    agreed = folder.parent / "agreed.toml"
    agreed.write_text(AGREED)
    file = site_folder(folder, **keys)
    return Surroundings.of(str(file), settings=str(agreed))


# 1, versions -------------------------------------------------------------------------------------


def test_another_version_than_the_federations(folder):
    said = found(Surroundings(invitation(fedgrpo="9.9.9")), 1)["fedgrpo-version"]
    assert "the federation runs 9.9.9" in said
    assert "wheel" in said


def test_a_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 11, 0, "final", 0))
    assert "3.11.0 is older than 3.11.1" in found(Surroundings(invitation()), 1)["python-version"]


def test_a_flower_that_this_version_does_not_know(monkeypatch):
    monkeypatch.setattr(agreed, "version", lambda _: "1.30.0")
    said = found(Surroundings(invitation()), 1)["flower-version"]
    assert "pip install 'flwr" in said


# 7, the node's key -------------------------------------------------------------------------------


def test_a_key_that_others_may_read(folder):
    place = here(folder)
    (folder / "node.key").chmod(0o640)
    assert f"chmod 600 {folder}/node.key" in found(place, 7)["key-mode"]


def test_a_key_that_is_not_there_or_of_another_kind(folder):
    place = here(folder)
    (folder / "node.key").unlink()
    assert "ssh-keygen" in found(place, 7)["key-unusable"]
    other = ed25519.Ed25519PrivateKey.generate()
    (folder / "node.key").write_bytes(
        other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    assert "of a kind" in found(place, 7)["key-unusable"]


def test_before_a_site_has_joined_it_has_no_key():
    assert "fedgrpo join" in found(Surroundings(invitation()), 7)[""]


# 8, the invitation -------------------------------------------------------------------------------


def test_an_invitation_that_has_expired_or_soon_will():
    ended = invitation(expires=int(time.time()) - 60)
    assert (
        "fedgrpo invite hospital-a --again" in found(Surroundings(ended), 8)["invitation-expired"]
    )
    ends = invitation(expires=int(time.time()) + 3600)
    assert "join before that" in found(Surroundings(ends), 8)["invitation-ends"]


def test_an_invitation_that_was_changed_on_its_way(tmp_path):
    file = tmp_path / "hospital-a.invitation"
    file.write_text(invitation().text.replace("hospital-a", "hospital-b"))
    said = found(Surroundings.of(str(file)), 8)["invitation-invalid"]
    assert "was changed on its way" in said
    assert "Telephone the operator" in said


def test_a_site_file_that_cannot_be_read(tmp_path):
    (tmp_path / "site.toml").write_text("server = 7")
    place = Surroundings.of(str(tmp_path / "site.toml"))
    assert "server" in found(place, 8)["site-file-invalid"]
    assert list(found(place, 2)) == ["after-others"]


def test_a_server_that_is_no_address(folder):
    assert "fed.example:8443" in found(here(folder, server="nowhere"), 8)["server-unnamed"]


# 10, the policy ----------------------------------------------------------------------------------


def test_a_policy_that_fits_is_green(folder):
    assert "pays for all 2 rounds" in found(here(folder), 10)[""]


def test_a_policy_that_is_missing_or_cannot_be_read(folder):
    place = here(folder)
    (folder / "policy.toml").write_text("largest = [")
    assert "mend it" in found(place, 10)["policy-unreadable"]
    (folder / "policy.toml").unlink()
    assert "clients/policy.toml" in found(place, 10)["policy-missing"]


def test_a_policy_that_forbids_the_settings_says_each_reason(folder):
    place = here(folder)
    policy = (folder / "policy.toml").read_text()
    (folder / "policy.toml").write_text(
        policy.replace("tiny", "huge").replace("after_s = 600.0", "after_s = 0.0")
    )
    listed = [each.line for each in CHECKS[10].look(place) if each.code == "policy-forbids"]
    assert any("model 'tiny' is not allowed" in line for line in listed)
    assert any("answer_after_s" in line for line in listed)


def test_an_account_that_has_too_little_left(folder):
    place = here(folder)
    policy = (folder / "policy.toml").read_text()
    (folder / "policy.toml").write_text(f"rounds = 1\n{policy}")
    assert "for 1 of 2 rounds" in found(place, 10)["account-nearly"]
    (folder / "policy.toml").write_text(f"rounds = 0\n{policy}")
    assert "for 0 of 2 rounds" in found(place, 10)["account-spent"]


def test_hours_in_which_nothing_is_answered(folder):
    place = here(folder)
    policy = (folder / "policy.toml").read_text()
    (folder / "policy.toml").write_text(f'hours = "20:00-06:00"\n{policy}')
    noon = datetime(2026, 11, 27, 12, 0).timestamp()
    said = found(replace(place, clock=lambda: noon), 10)["hours-closed"]
    assert "it is 12:00" in said


# 11, account and state ---------------------------------------------------------------------------


def test_an_account_in_which_a_line_was_changed(folder):
    place = here(folder)
    spent = SpendingFile(folder / "spent.jsonl")
    for number in (1, 2):
        spent.charge(Entry("now", 1, number, f"{number:064}", "prompt", 1.0, 0.1), lambda _: None)
    assert list(found(place, 11)) == [""]
    spent.path.write_text(spent.path.read_text().replace('"round": 1', '"round": 7'))
    assert "last backup" in found(place, 11)["account-broken"]


def test_an_account_whose_last_line_is_torn(folder):
    place = here(folder)
    (folder / "spent.jsonl").write_text('{"previous": "00')
    assert "mends it" in found(place, 11)["account-torn"]


def test_a_folder_that_others_may_look_into(folder):
    place = here(folder)
    folder_beside(folder / "prompts.jsonl").chmod(0o755)
    assert "chmod 700" in found(place, 11)["folder-open"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user(folder):
    place = here(folder)
    os.chown(folder_beside(folder / "prompts.jsonl"), 12345, 12345)
    assert "chown -R" in found(place, 11)["folder-foreign"]


def test_a_place_that_cannot_be_written_to(folder):
    """Nobody can make a folder in a file, root included."""
    place = here(folder, state="site.toml/state")
    assert "another folder in site.toml" in found(place, 11)["folder-unwritable"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs that everybody may write to")
def test_a_folder_that_is_empty_after_a_restart(folder):
    place = here(folder, state="/dev/shm/fedgrpo-nowhere")
    assert "tmpfs, which is empty after a restart" in found(place, 11)["folder-volatile"]


def test_a_folder_that_goes_with_its_container(folder, tmp_path):
    (tmp_path / "mounts").write_text("22 1 0:30 / / rw,relatime - overlay overlay rw,lowerdir=x\n")
    place = replace(here(folder), machine=Machine(mounts=tmp_path / "mounts"))
    assert "mount a volume" in found(place, 11)["folder-layer"]


def test_a_second_node_with_the_same_folder_does_not_start(folder):
    place = here(folder)
    starting = replace(place, moment=Moment.START)
    state = folder_beside(folder / "prompts.jsonl")
    with alone(state, RUNNING, cure="none"):
        assert f"as process {os.getpid()}" in found(starting, 11)["node-twice"]
        assert list(found(place, 11)) == [""]
    assert list(found(starting, 11)) == [""]


# 15, disk; 16, processors ------------------------------------------------------------------------


def test_a_disk_that_is_full_or_nearly(folder, monkeypatch):
    place, free = here(folder), shutil.disk_usage(folder.parent).free // 2**20
    monkeypatch.setattr(state_and_disk, "PLENTY_MIB", free + 1000)
    assert "before it is full" in found(place, 15)["disk-nearly"]
    monkeypatch.setattr(state_and_disk, "NEEDED_MIB", free + 1000)
    assert "make room" in found(place, 15)["disk-full"]


def test_more_threads_than_there_are_cores(folder):
    cores = len(os.sched_getaffinity(0))
    place = here(folder, threads=cores + 1)
    assert f"write threads = {cores}" in found(place, 16)["threads-many"]
    assert list(found(here(folder, threads=cores), 16)) == [""]


def test_a_container_that_gives_less_than_a_core(folder, tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    place = replace(here(folder), machine=Machine(cgroup=tmp_path))
    assert "0.5 cores" in found(place, 16)["quota-small"]


@pytest.mark.parametrize(
    ("said", "paid"),
    [("150000 100000", 1.5), ("max 100000", math.inf), ("", math.inf), ("1 0", math.inf)],
)
def test_what_a_container_pays_for_is_read_in_one_place(said, paid, folder, tmp_path):
    (tmp_path / "cpu.max").write_text(said)
    assert paid_cores(tmp_path) == paid
    cores = usable_cores(tmp_path)
    assert cores == (1 if paid == 1.5 else len(os.sched_getaffinity(0)))
    place = replace(here(folder, threads=cores + 1), machine=Machine(cgroup=tmp_path))
    assert f"gives {cores}" in found(place, 16)["threads-many"]


# 17 and 18, a member of a committee --------------------------------------------------------------


def member(folder, addresses, **keys):
    """A site that is the first of the listed members."""
    folder.mkdir()
    key = folder / "member.key"
    key.touch(0o600)
    identities = [Identity.new() for _ in addresses]
    key.write_bytes(identities[0].to_bytes())
    public = [i.public.signing + i.public.agreement for i in identities]
    named = [
        f"{own.hex()}{f'@{place}' if place else ''}"
        for own, place in zip(public, addresses, strict=True)
    ]
    place = here(folder, committee_key="member.key", **keys)
    tree = {"aggregation": {"committee": named}}
    return replace(place, settings=Settings.from_mapping(tree))


def addresses():
    return [f"127.0.0.1:{port}" for port in free_ports(4)]


def test_a_member_that_reaches_itself_and_all_others_is_green(folder):
    """Others refuse while no round computes: their machines are there."""
    place = member(folder, addresses())
    assert "is free" in found(place, 17)[""]
    assert "3 others can be reached" in found(place, 18)[""]


def test_a_port_that_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place = member(folder, addresses(), committee_listen=f"127.0.0.1:{port}")
        assert f"ss -ltnp sport = :{port}" in found(place, 17)["port-taken"]


def test_an_address_that_is_not_of_this_machine(folder):
    place = member(folder, addresses(), committee_listen="192.0.2.1:7443")
    assert "0.0.0.0:7443" in found(place, 17)["address-foreign"]


def test_a_members_key_that_others_may_read(folder):
    place = member(folder, addresses())
    (folder / "member.key").chmod(0o644)
    assert "chmod 600" in found(place, 18)["member-key"]


def test_a_key_that_the_settings_do_not_list(folder):
    place = member(folder, addresses())
    (folder / "member.key").write_bytes(Identity.new().to_bytes())
    assert "fedgrpo committee-key" in found(place, 18)["member-unlisted"]


def test_a_key_where_the_settings_are_of_no_committee_is_none_too_many(folder):
    place = member(folder, addresses())
    place = replace(place, settings=Settings())
    assert "the settings are of no committee" in found(place, 18)[""]


def test_an_invited_site_is_looked_at_as_the_member_that_it_is_to_be(folder):
    place = member(folder, addresses())
    joining = replace(place, given=invitation(), own={"committee-key": str(folder / "member.key")})
    assert "listed" in found(joining, 18)[""]


def test_a_member_that_cannot_be_reached(folder):
    listed = [*addresses()[:3], "no.such.host.invalid:7443"]
    said = found(member(folder, listed), 18)["member-unreached"]
    assert "member 4 at no.such.host.invalid:7443" in said
    assert "firewall" in said


def test_others_are_dialled_before_prompts_are_looked_at(folder, monkeypatch):
    """What takes seconds comes first, and when something is sent does not follow from prompts."""
    done = []

    def noted(module, name):
        work = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: (done.append(name), work(*given))[1])

    noted(dialling, "create_connection")
    noted(prompts_and_policy, "files_stamp")
    place = replace(member(folder, addresses()), moment=Moment.HOURLY)
    made = [each.check.number for each in examine(place)]
    assert made == [*(n for n in range(1, 22) if n not in (late := [9, 12, 13, 14, 21])), *late]
    assert done == ["create_connection"] * 4 + ["files_stamp"]


def test_a_member_that_does_not_hear_what_others_dial(folder):
    outside, inside, *others = addresses()
    place = member(folder, [outside, *others, "127.0.0.1:9"], committee_listen=inside)
    assert (
        f"pass TCP port {outside.rpartition(':')[2]} on to {inside}"
        in found(place, 18)["member-deaf"]
    )


def test_members_for_whom_the_server_relays_dial_nobody(folder):
    assert "relays" in found(member(folder, ["", "", "", ""]), 18)[""]


# 20, the service ---------------------------------------------------------------------------------

UNIT = """[Unit]
Description=fedgrpo
[Service]
ExecStart=/opt/fedgrpo/bin/fedgrpo node /etc/fedgrpo/site.toml
Restart=always
User=fedgrpo
IPAddressDeny=any
IPAddressAllow=127.0.0.0/8
"""


def served(folder, unit=UNIT, *, enabled=True):
    """A site on a machine whose only unit is this one."""
    units = folder.parent / "units"
    (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    (units / "fedgrpo-node.service").write_text(unit)
    if enabled:
        (units / "multi-user.target.wants" / "fedgrpo-node.service").symlink_to(
            units / "fedgrpo-node.service"
        )
    machine = Machine(units=(units, folder.parent / "of-a-user"), containers=())
    return replace(here(folder), machine=machine)


def test_a_unit_that_is_right_is_green(folder):
    assert list(found(served(folder), 20)) == [""]


@pytest.mark.parametrize(
    ("code", "unit", "enabled", "cure"),
    [
        ("service-disabled", UNIT, False, "systemctl enable --now fedgrpo-node.service"),
        ("service-once", UNIT.replace("always", "on-failure"), True, "Restart=always"),
        ("service-root", UNIT.replace("User=fedgrpo\n", ""), True, "User="),
    ],
)
def test_a_unit_that_is_wrong(folder, code, unit, enabled, cure):
    said = found(served(folder, unit, enabled=enabled), 20)
    assert list(said) == [code]
    assert cure in said[code]


def test_a_site_that_nothing_starts_again(folder):
    place = replace(here(folder), machine=Machine(units=(folder,), containers=()))
    assert "systemctl enable --now" in found(place, 20)["service-none"]


def test_the_unit_that_join_writes_is_green(folder, tmp_path):
    words = ("node", str(folder / "site.toml"))
    written = unit(Service("a site", words, tmp_path, [tmp_path]), tmp_path / "x.service")
    mine = written.replace(f"User={getpass.getuser()}", "User=fedgrpo")
    assert list(found(served(folder, mine), 20)) == [""]


def test_a_container_is_started_again_by_its_engine(folder, tmp_path):
    (tmp_path / "containerenv").touch()
    machine = Machine(units=(folder,), containers=(tmp_path / "containerenv",))
    assert "engine" in found(replace(here(folder), machine=machine), 20)[""]


def test_json_of_findings_is_read_by_programs(folder):
    place = here(folder)
    (folder / "node.key").chmod(0o644)
    (first, *_) = CHECKS[7].look(place)
    told = json.loads(json.dumps(as_json(CHECKS[7], first)))
    assert told["code"] == "key-mode"
    assert told["light"] == "red"
