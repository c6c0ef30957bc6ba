"""An invitation comes as it was written, or is refused in words."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.federation.deployment.invitation.fingerprint import ALPHABET, fingerprint, heard
from fedgrpo.federation.deployment.invitation.invitation import Invitation
from fedgrpo.ground.errors import InvitationError, SettingsError

NOW = 1_800_000_000


def invitation(**changed):
    fields = {
        "server": "fed.example:8443",
        "ca": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "site": "hospital-a",
        "token": "t" * 32,
        "expires": NOW + 60,
        "fedgrpo": "0.1.0",
        "settings": "rounds = 3\nrobust.rule = 'mean'\nrobust.trim = 0\n",
    }
    return Invitation(**fields | changed)


def test_file_and_line_are_the_same_invitation(tmp_path):
    made, file = invitation(), tmp_path / "hospital-a.invitation"
    file.write_text(made.text)
    assert Invitation.read(file) == Invitation.read(made.line) == made
    assert "\n" not in made.line
    file.write_text(made.line + "\n")
    assert Invitation.read(file) == made
    assert made.agreed().rounds == 3


def test_a_line_that_a_chat_has_broken_is_read(tmp_path):
    line = invitation().line
    assert Invitation.read(f"  {line[:40]}\n{line[40:]} ") == invitation()


@pytest.mark.parametrize(
    ("field", "value"),
    [("settings", "rounds = 4"), ("server", "thief.example:8443"), ("token", "u" * 32)],
)
def test_whatever_is_changed_changes_the_fingerprint_and_is_refused(tmp_path, field, value):
    made, file = invitation(), tmp_path / "i"
    assert invitation(**{field: value}).fingerprint != made.fingerprint
    file.write_text(json.dumps(json.loads(made.text) | {field: value}))
    with pytest.raises(InvitationError, match="changed on its way"):
        Invitation.read(file)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_damaged_line_is_refused_in_words(data):
    line = invitation().line
    at = data.draw(st.integers(20, len(line) - 1))
    cut = data.draw(st.booleans())
    damaged = line[:at] if cut else line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :]
    with contextlib.suppress(InvitationError):  # Anything else would be no words.
        assert Invitation.read(damaged) == invitation()  # Unused bits of the last digit.


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"site": 3}', b"[" * 100_000])
def test_what_is_no_invitation_is_refused_in_words(tmp_path, content):
    (tmp_path / "i").write_bytes(content)
    with pytest.raises(InvitationError, match="invitation"):
        Invitation.read(tmp_path / "i")


@pytest.mark.parametrize(
    ("field", "value"),
    [("site", "../etc"), ("site", "Hospital A"), ("server", "fed.example"), ("ca", "file.pem")],
)
def test_a_field_that_cannot_be_used_is_named(tmp_path, field, value):
    made = json.loads(invitation().text)
    (tmp_path / "i").write_text(json.dumps(made | {field: value}))
    with pytest.raises(InvitationError, match=field):
        Invitation.read(tmp_path / "i")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InvitationError, match=r"nowhere\.invitation"):
        Invitation.read("nowhere.invitation")


def test_an_expired_one_and_one_of_another_version_are_refused():
    invitation().check(NOW, "0.1.0")
    with pytest.raises(InvitationError, match="expired, on 2027-01-15 08:01 UTC"):
        invitation().check(NOW + 60, "0.1.0")
    with pytest.raises(InvitationError, match=r"to fedgrpo 0.1.0, and 0.2.0 is installed"):
        invitation().check(NOW, "0.2.0")


def test_settings_that_are_none_are_refused():
    with pytest.raises(SettingsError, match="no TOML"):
        invitation(settings="rounds =").agreed()
    with pytest.raises(SettingsError, match="roundz"):
        invitation(settings="roundz = 3").agreed()


def test_a_fingerprint_has_four_groups_of_four_that_can_be_read_aloud():
    groups = fingerprint(b"x").split("-")
    assert [len(group) for group in groups] == [4, 4, 4, 4]
    assert set("".join(groups)) <= set(ALPHABET)
    assert fingerprint(b"x") != fingerprint(b"y")
    assert heard(fingerprint(b"x").lower().replace("-", " ").replace("0", "o")) == fingerprint(b"x")
