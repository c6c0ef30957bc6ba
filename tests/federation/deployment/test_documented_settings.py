"""The settings that docs/deployment.md shows for ``flwr run -c`` are taken as they stand."""

from __future__ import annotations

import tomllib

import pytest

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.settings import Settings
from tests.federation.deployment.operated import ROOT

PAGE = (ROOT / "docs" / "deployment.md").read_text()
BLOCKS = [block.partition("```")[0] for block in PAGE.split("```toml\n")[1:]]


def flat(tree, under=""):
    """Settings as ``flwr run -c`` reads them: scalars only, or it refuses them."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{under}{key}.")
        else:
            assert isinstance(value, int | float | bool | str), f"{key} is a list"
            yield f"{under}{key}", value


def settings(beginning):
    (block,) = (block for block in BLOCKS if block.startswith(beginning))
    return dict(flat(tomllib.loads(block)))


def test_settings_for_three_sites():
    found = Settings.from_run_config(settings("rounds"))
    assert found.federation.min_clients == 3


def test_a_committees_settings():
    shown = settings("aggregation")
    lines = [line.strip().rstrip(",") for line in shown["aggregation.committee"].splitlines()]
    lines = [line for line in lines if line]
    assert len(lines) == 5
    for number, line in enumerate(lines):
        whole = f"{number + 1}" * 128 + line[line.index("@") :]
        shown["aggregation.committee"] = shown["aggregation.committee"].replace(line, whole)
    found = Settings.from_run_config(shown | {"federation.min_clients": 5})
    assert len(found.aggregation.committee) == 5


def test_a_site_file(tmp_path):
    (block,) = (block for block in BLOCKS if block.startswith("server"))
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in block.splitlines()
    )
    (tmp_path / "site.toml").write_text(uncommented)
    found = SiteFile.read(tmp_path / "site.toml")
    assert found.node_config["prompts"] == str(tmp_path / "prompts.jsonl")
    assert found.node_config["committee-key"] == str(tmp_path / "member.key")
    assert found.node_config["threads"] == 4
    assert found.app == "our_package:app"


@pytest.mark.parametrize("words", [["server", "--help"], ["node", "--help"]])
def test_commands_of_the_page_exist(words):
    from typer.testing import CliRunner

    assert CliRunner().invoke(app, words).exit_code == 0
