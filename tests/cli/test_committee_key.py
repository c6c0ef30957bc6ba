"""``fedgrpo committee-key`` makes keys once, for their owner alone, to be compared by others."""

from pathlib import Path

from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.secure.committee import Identity
from fedgrpo.site import Policy, fingerprint


def test_what_it_prints_is_what_a_policy_takes_and_shows_by_its_fingerprint(tmp_path: Path) -> None:
    printed = [CliRunner().invoke(app, ["committee-key", f"{tmp_path}/{n}"]) for n in range(4)]
    keys = [result.stdout.strip() for result in printed]
    assert Policy.model_validate({"committee": keys}).committee == tuple(keys)
    for result, own in zip(printed, keys, strict=True):
        assert result.stderr == f"fingerprint {fingerprint(own)}\n"


def test_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    file = tmp_path / "member.key"
    first, again = (CliRunner().invoke(app, ["committee-key", str(file)]) for _ in range(2))
    assert first.stdout == again.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    public = Identity.from_bytes(file.read_bytes()).public
    assert first.stdout == (public.signing + public.agreement).hex() + "\n"
