"""What a model process holds is told from what lies on the disk now."""

from __future__ import annotations

import os
import sys

import pytest

from fedgrpo.federation.node.residence.identity import identity_of
from fedgrpo.site.declared import Declared
from tests.federation.federation import make_settings

DECLARED = Declared(6, 16, (), 60.0, any_weights=False)


def identity(name):
    settings = make_settings(reward__functions=name, reward__weights="1.0")
    return identity_of(settings, {}, DECLARED)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package beside others, of which nothing is imported."""
    folder = tmp_path / "their_package" / "inner"
    folder.mkdir(parents=True)
    for file in (folder.parent / "__init__.py", folder / "__init__.py", folder / "rewards.py"):
        file.write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def touched(file):
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("form", ["their_package.inner.rewards:f", "{file}:f", "{file}:f(x=2)"])
def test_a_reward_that_has_changed_is_another_one_by_file_or_module(package, form):
    name = form.format(file=package / "rewards.py")
    before = identity(name)
    assert identity(name) == before
    touched(package / "rewards.py")
    assert identity(name) != before
    assert "their_package" not in sys.modules, "it was imported"


def test_a_package_that_is_a_reward_s_place_counts_by_its_own_file(package):
    before = identity("their_package.inner:f")
    touched(package / "__init__.py")
    assert identity("their_package.inner:f") != before


@pytest.mark.parametrize(
    "name", ["no.such.module:f", "their_package.inner.rewards.f:g", "their_package.none:f", "os:f"]
)
def test_a_module_that_is_not_there_is_no_error_here(package, name):
    assert identity(name)


def test_a_folder_within_a_folder_that_are_no_packages(package):
    for file in ("__init__.py", "inner/__init__.py"):
        (package.parent / file).unlink()
    assert identity("their_package.inner.rewards:f")
