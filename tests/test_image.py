"""What image and compose file promise; docs/versions.md says what was built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fedgrpo.cli.app import app

FOLDER = Path(__file__).parents[1] / "docker"
IMAGE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.mark.parametrize("side", ["operator", "site"])
def test_each_side_has_one_folder_and_no_rights(side: str) -> None:
    service = COMPOSE["services"][side]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [volume.rpartition(":")[2] for volume in service["volumes"]] == ["/state"]
    assert "privileged" not in service
    assert CliRunner().invoke(app, [service["command"][0], "--help"]).exit_code == 0


def test_a_site_publishes_no_port() -> None:
    assert "ports" not in COMPOSE["services"]["site"]
    assert COMPOSE["services"]["operator"]["ports"] == ["8443:8443"]


def test_the_image_ends_as_an_ordinary_user_with_what_compose_gives_it() -> None:
    *_, last = re.findall(r"^USER (\S+)$", IMAGE, re.MULTILINE)
    assert re.search(rf"useradd --uid [1-9]\d+ .*\b{last}\b", IMAGE)
    given = COMPOSE["services"]["site"]["build"]["args"]
    declared = re.findall(r"^ARG (\w+)", IMAGE, re.MULTILINE)
    assert set(given) <= set(declared)


def test_the_image_installs_the_wheel_at_the_versions_that_are_pinned() -> None:
    installs = re.findall(r"pip install[^&]*", IMAGE)
    assert len(installs) == 2
    assert all("--constraint /tmp/constraints.txt" in install for install in installs)
    assert "/tmp/fedgrpo-*.whl" in installs[-1]
