"""A site's people are asked before anything is sent, and nothing of theirs is made twice."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.invitation.invitation import SYSTEM, Invitation
from fedgrpo.federation.deployment.site.joining.asking import key_fingerprint
from fedgrpo.federation.deployment.site.joining.site_folder import SiteFolder
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.rehearsal import accepting
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import PolicyError, RunError
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits
from fedgrpo.settings import Settings
from fedgrpo.site import SpendingFile
from fedgrpo.site.account.costs import round_entry
from tests.federation.deployed import write_prompts

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def invitation(**changed):
    fields = {
        "server": "127.0.0.1:9",  # Whoever got as far as to ask it would fail otherwise.
        "ca": CA,
        "site": "hospital-a",
        "token": "t" * 43,
        "expires": int(time.time()) + 86_400,
        "fedgrpo": VERSION,
        "settings": "federation.min_clients = 3\nrobust.rule = 'mean'\nrobust.trim = 0\n",
    }
    return Invitation(**fields | changed)


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "prompts.jsonl", seed=0)
    return tmp_path / "prompts.jsonl"


def write(folder, made, told):
    return folder.write_site_file(made, folder.planned(made, told))


def join(made, prompts, *words, typed=""):
    command = ["join", made.line, "--prompts", str(prompts), *words]
    result = CliRunner().invoke(app, command, input=typed)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("typed", ["", "n\n", "\n", "ja\n"])
def test_without_a_yes_to_the_fingerprint_nothing_is_made_or_sent(prompts, typed):
    made = invitation()
    code, said = join(made, prompts, typed=typed)
    assert code == 2
    assert made.fingerprint in said
    assert "nothing was sent" in said
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.jsonl"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"expires": 1}, "has expired, on 1970-01-01 00:00 UTC"),
        ({"fedgrpo": "0.0.1"}, f"to fedgrpo 0.0.1, and {VERSION} is installed here"),
        ({"settings": "roundz = 3"}, "roundz"),
    ],
)
def test_an_invitation_that_cannot_be_used_is_refused_before_anybody_is_asked(
    prompts, changed, words
):
    code, said = join(invitation(**changed), prompts, typed="y\n")
    assert code == 2
    assert words in said
    assert "[y/N]" not in said


def test_prompts_that_are_not_there_are_named_before_anything_is_made(prompts):
    made = invitation()
    code, said = join(made, prompts / "x", "--accept", made.fingerprint)
    assert (code, "does not exist" in said) == (2, True)
    assert not (prompts.parent / "hospital-a").exists()


def test_an_invitation_that_has_ended_since_is_good_enough_for_a_machine_that_has_joined(prompts):
    """Whether this key used it in time is the server's to say."""
    SiteFolder.of(prompts.parent / "hospital-a").kept_node_key()
    made = invitation(expires=1)
    code, said = join(made, prompts, typed="n\n")
    assert code == 2
    assert "Is this what the operator reads to you?" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--policy", "none.toml"), "none.toml does not exist"),
        (("--reward", "r.py:f=x.py"), "is no NAME=FILE of a reward of the settings"),
        (("--columns", "question"), "is no table"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_made(prompts, words, problem):
    made = invitation()
    code, said = join(made, prompts, "--accept", made.fingerprint, *words)
    assert (code, problem in said) == (2, True), said
    assert not (prompts.parent / "hospital-a").exists()


DESPITE = ("--despite", "port-refused", "--despite", "folder-volatile")
"""The invitation's certificate is none, so that nothing is ever sent; and tests may run in memory.
"""


@pytest.mark.slow
def test_what_the_doctor_finds_red_stops_a_site_before_anything_is_made(prompts):
    made = invitation()
    prompts.write_text('{"prompt": "sort 321="}\n' * 40)
    (prompts.parent / "policy.toml").write_text(
        "prompts_declared = 40\nlongest_prompt_tokens = 16\n"
    )
    code, said = join(made, prompts, "--accept", made.fingerprint)
    assert code == 2
    assert "cannot take part yet, see above: column-lacking, policy-forbids, port-refused" in said
    assert "the policy would refuse the federation's settings" in said
    assert "yellow: 39 rows are exact copies of others" in said
    assert said.count("cure:") >= 4
    assert not (prompts.parent / "hospital-a").exists()


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    folder = SiteFolder.of(tmp_path / "hospital-a")
    folder.kept_node_key()
    first = folder.key.read_bytes()
    folder.kept_node_key()
    assert folder.key.read_bytes() == first
    assert folder.key.stat().st_mode & 0o077 == 0
    assert folder.path.stat().st_mode & 0o077 == 0
    assert key_fingerprint(folder.key).count("-") == 3
    folder.key.chmod(0o644)
    with pytest.raises(RunError, match="others can read"):
        folder.kept_node_key()


def test_the_site_file_is_whole_and_keeps_what_people_added(tmp_path):
    folder = SiteFolder.of(tmp_path / "hospital-a")
    folder.write_root(invitation())
    prompts, policy = tmp_path / "prompts.jsonl", folder.policy
    told = {"prompts": str(prompts), "policy": str(policy), "models": {"lab/model": "/models/lab"}}
    written = write(folder, invitation(), told)
    assert written.prompts == str(prompts)
    with folder.site_file.open("a") as file:
        file.write("threads = 3\n")
    again = write(folder, invitation(server="fed.example:1"), {})
    assert (again.threads, again.server) == (3, "fed.example:1")
    assert (again.prompts, again.models) == (written.prompts, {"lab/model": "/models/lab"})
    assert again == SiteFile.read(folder.site_file)


def test_the_unit_lets_the_node_reach_its_federation_and_write_its_account(tmp_path):
    folder, beside = SiteFolder.of(tmp_path / "a"), tmp_path / "data" / "policy.toml"
    members = [f"{f'{number:02x}' * 64}@127.0.0.{number}:7443" for number in range(2, 6)]
    settings = ["privacy.noise = 'server'", "aggregation.protocol = 'committee'"]
    settings.append(f"aggregation.committee = {members}")
    made = invitation(settings="\n".join(settings))
    prompts = beside.with_name("prompts.jsonl")
    told = {"prompts": str(prompts), "policy": str(beside)}
    folder.write_site_file(made, folder.planned(made, told), memory=2**31)
    lines = folder.service.read_text().splitlines()
    (allowed,) = (line for line in lines if line.startswith("IPAddressAllow="))
    for address in ["127.0.0.1", *(f"127.0.0.{number}" for number in range(2, 6))]:
        assert address in allowed.partition("=")[2].split()
    assert f'ReadWritePaths="{folder.path}" "{beside.parent}"' in lines
    assert f'ReadOnlyPaths="-{prompts}"' in lines
    assert f"LoadCredential=key:{folder.key}" in lines
    assert "MemoryMax=2048M" in lines
    assert "MemoryMax=2048M" in folder.user_service.read_text()


def test_with_a_public_authority_the_machines_own_list_is_used(tmp_path):
    folder, made = SiteFolder.of(tmp_path / "a"), invitation(ca=SYSTEM)
    root = folder.write_root(made)
    read = write(folder, made, {"prompts": str(tmp_path)})
    assert root.exists()
    assert read.ca == str(root)
    assert not folder.ca.exists()


def test_an_old_account_is_taken_over_once_and_whole(tmp_path):
    old = SpendingFile(tmp_path / "old" / "spent.jsonl")
    old.path.parent.mkdir()
    old.charge(round_entry(Settings(), at="now", run=1, round=1, plan="p"), lambda entries: None)
    folder = SiteFolder.of(tmp_path / "hospital-a")
    folder.take_account(old.path)
    assert SpendingFile(folder.path / "spent.jsonl").read() == old.read()
    with pytest.raises(RunError, match="an account in"):
        folder.take_account(old.path)
    old.path.write_bytes(old.path.read_bytes().replace(b'"round": 1', b'"round": 2'))
    with pytest.raises(PolicyError):
        SiteFolder.of(tmp_path / "hospital-b").take_account(old.path)


@pytest.mark.slow
def test_the_proposal_is_read_before_it_is_accepted_and_lets_the_prompts_be_used(prompts):
    made = invitation(settings=invitation().settings + "data.min_prompts = 40\n")
    code, said = join(made, prompts, "--accept", made.fingerprint, *DESPITE)
    assert code == 2
    assert "WHAT LEAVES THIS MACHINE" in said
    assert "the policy is not accepted; nothing was sent" in said
    folder = prompts.parent / "hospital-a"
    assert sorted(path.name for path in folder.iterdir()) == ["policy.proposed.toml"]
    mark = said.rpartition("--accept ")[2].split(")")[0]
    words = ("--accept", made.fingerprint, "--accept", mark, *DESPITE)
    code, said = join(made, prompts, *words)
    assert f"root certificate {folder / 'ca.crt'} cannot be read" in said, "it asked nobody"
    assert (folder / "policy.toml").exists()
    assert (folder / "state").is_dir(), said
    key = (folder / "node.key").read_bytes()
    code, said = join(made, prompts, *words)
    assert f"policy {folder / 'policy.toml'} is taken as it is" in said
    assert (folder / "node.key").read_bytes() == key, "a second key"
    needed = accepting.most_memory(folder / "policy.toml", made.agreed(), {})
    assert WorkerLimits().memory_mb * 10**6 + accepting.AROUND_BYTES < needed < 2**33
