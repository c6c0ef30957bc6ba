"""A server's folder is made once, for its owner alone, with a certificate as sites expect it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.invitation.invitation import SYSTEM, Invitation
from fedgrpo.federation.deployment.operator.certificates import days_left
from fedgrpo.federation.deployment.operator.federation_file import FederationFile
from fedgrpo.federation.deployment.operator.inviting import agreed_text
from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import read_scenario

AGREED = """
rounds = 3
[federation]
min_clients = 3
[secure]
bucket_size = 3
[robust]
rule = "mean"
trim = 0
[reward]
functions = ["exact_match", "length(target=20)"]
weights = [1.0, 0.1]
"""


def cli(*words, code=0):
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def folder(tmp_path):
    cli("server", "init", tmp_path / "fed", "--host", "fed.example", "--port", 9443)
    return tmp_path / "fed"


@pytest.fixture
def agreed(tmp_path):
    file = tmp_path / "agreed.toml"
    file.write_text(AGREED)
    return file


def test_a_file_that_an_editor_has_begun_with_a_mark_is_read(folder):
    file = folder / "federation.toml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert FederationFile.read(folder).port == 9443


def test_a_status_page_of_a_folder_without_a_federation_is_refused(tmp_path):
    said = cli("server", tmp_path / "state", "--status-bind", "127.0.0.1:8450", code=2)
    assert "fedgrpo server init" in " ".join(said.split())
    assert not (tmp_path / "state").exists()


def test_a_folder_is_made_once_and_for_its_owner_alone(folder):
    assert folder.stat().st_mode & 0o077 == 0
    for key in ("ca.key", "server.key", "federation.toml"):
        assert (folder / key).stat().st_mode & 0o077 == 0, key
    before = (folder / "ca.key").read_bytes()
    said = cli("server", "init", folder, "--host", "fed.example", code=2)
    assert "exists, and nothing in it was touched" in " ".join(said.split())
    assert (folder / "ca.key").read_bytes() == before


@pytest.mark.parametrize("host", ["fed.example:8443", "https://fed.example", "", "a b"])
def test_a_host_that_is_none_is_refused_before_anything_is_made(tmp_path, host):
    cli("server", "init", tmp_path / "fed", "--host", host, code=2)
    assert not (tmp_path / "fed").exists()


def test_the_certificate_is_for_the_host_and_begins_a_day_ago(folder):
    pem = (folder / "server.pem").read_bytes()
    read = x509.load_pem_x509_certificate(pem)
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example", "localhost"]
    assert read.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=23)
    assert 800 < days_left(folder / "server.pem", datetime.now(UTC)) < 825
    ssl.create_default_context(cafile=str(folder / "ca.crt"))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        folder / "server.pem", folder / "server.key"
    )


def test_a_renewed_certificate_is_signed_by_the_same_authority(folder):
    root, before = (folder / "ca.crt").read_bytes(), (folder / "server.pem").read_bytes()
    cli("server", "renew", folder)
    assert (folder / "ca.crt").read_bytes() == root
    after = (folder / "server.pem").read_bytes()
    assert after != before
    authority = x509.load_pem_x509_certificate(root)
    x509.load_pem_x509_certificate(after).verify_directly_issued_by(authority)


def test_with_a_public_authority_sites_need_no_certificate(folder, agreed, tmp_path):
    files = folder / "server.pem", folder / "server.key"
    cli("server", "init", tmp_path / "public", "--host", "fed.example", "--public-ca", *files)
    assert FederationFile.read(tmp_path / "public").root() == SYSTEM
    cli("invite", "a", "--settings", agreed, "--server", tmp_path / "public")
    made = Invitation.read(tmp_path / "public" / "invitations" / "a.invitation")
    assert made.ca == SYSTEM
    cli("server", "renew", tmp_path / "public", code=2)


def test_an_invitation_carries_what_was_agreed(folder, agreed):
    said = cli("invite", "hospital-a", "--settings", agreed, "--server", folder)
    made = Invitation.read(folder / "invitations" / "hospital-a.invitation")
    assert (made.server, made.site) == ("fed.example:9443", "hospital-a")
    assert made.fingerprint in said
    assert made.line in said
    assert made.agreed().fingerprint() == read_scenario(agreed, {}, folder).fingerprint()
    cli("invite", "hospital-b", "--server", folder)
    other = Invitation.read(folder / "invitations" / "hospital-b.invitation")
    assert other.settings == made.settings
    assert other.token != made.token


def test_a_site_is_invited_twice_only_when_the_operator_says_so(folder, agreed):
    cli("invite", "hospital-a", "--settings", agreed, "--server", folder)
    cli("invite", "hospital-a", "--server", folder, code=2)
    cli("invite", "hospital-b", "--again", "--server", folder, code=2)
    cli("invite", "hospital-a", "--again", "--server", folder)


@pytest.mark.parametrize(
    "words",
    [
        ("invite", "Hospital A"),
        ("invite", "hospital-a"),
        ("sites", "--confirm", "hospital-a", "7K2M-0QXR-9DAB-44TZ"),
        ("revoke", "hospital-a"),
        ("stop",),
        ("run", "missing.toml"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_cure(folder, words):
    assert "cure: " in cli(*words, "--server", folder, code=2)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("sites",),
        ("sites", "--confirm", "hospital-a", "7K2M-0QXR-9DAB-44TZ"),
        ("invite", "hospital-a"),
        ("revoke", "hospital-a"),
        ("run", "missing.toml"),
        ("stop",),
    ],
)
@pytest.mark.parametrize("place", [".", "nowhere", "file"])
def test_a_folder_that_is_no_federations_is_named_and_stays_as_it_is(tmp_path, words, place):
    (tmp_path / "file").write_text("")
    said = " ".join(cli(*words, "--server", tmp_path / place, code=2).split())
    assert f"{tmp_path / place} is no federation's folder" in said
    assert "FEDGRPO_SERVER" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_may_be_named_from_home(folder, agreed, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("FEDGRPO_SERVER", f"~/{folder.name}")
    cli("invite", "hospital-a", "--settings", agreed)
    assert "hospital-a" in cli("sites")


@pytest.mark.parametrize("line", ["port = 'x'", "hots = 'a'", "port = "])
def test_a_line_that_cannot_be_used_is_named(folder, line):
    (folder / "federation.toml").write_text(f'host = "fed.example"\n{line}\n')
    with pytest.raises(SettingsError, match=r"federation\.toml"):
        FederationFile.read(folder)


def test_no_certificate_is_renewed_without_an_authority(folder):
    (folder / "ca.key").unlink()
    cli("server", "renew", folder, code=2)


def test_settings_that_are_as_they_come_are_an_empty_text():
    assert agreed_text(Settings()) == ""


def test_days_left_of_what_is_no_certificate(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        days_left(tmp_path / "none.pem", datetime.now(UTC))
