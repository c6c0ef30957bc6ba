"""A node's folder is its owner's alone, and one process works on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedgrpo.ground.errors import PolicyError, RunError
from fedgrpo.site import Refusal
from fedgrpo.site.node_folder import LOCK, check_free, folder_beside, locked, owned_folder


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner could read the secret, or put another one in its place."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RunError, match="belongs to another user"):
        owned_folder(tmp_path)


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    assert owned_folder(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_the_folder_lies_beside_the_prompts() -> None:
    assert folder_beside(Path("/d/p.jsonl")) == Path("/d/.p.jsonl.fedgrpo")


def test_nothing_is_made_where_nothing_was_computed_yet(tmp_path: Path) -> None:
    check_free(None)
    check_free(tmp_path / "node")
    assert not (tmp_path / "node").exists()


def test_a_folder_is_free_again_when_its_client_is_done(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(PolicyError) as caught:
        check_free(tmp_path)
    assert caught.value.code == Refusal.BUSY
    check_free(tmp_path)


def test_a_lock_that_is_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
