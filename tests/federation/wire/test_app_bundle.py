"""The app bundle: what is staged builds with Flower's own builder, wherever the original lies."""

import tomllib
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate

from fedgrpo.federation.wire.app_bundle import ENTRIES, find_app, stage_app
from fedgrpo.ground.errors import RunError
from fedgrpo.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """Return a directory whose name Flower refuses."""
    path = tmp_path / "a_name_with_underscores_and_more_than_32_letters"
    path.mkdir()
    return path


@pytest.mark.parametrize("source", [None, ROOT], ids=["installed", "repository"])
def test_a_staged_app_is_one_that_flower_builds(source: Path | None, awkward: Path) -> None:
    app = stage_app(source, awkward / "fedgrpo-app")
    config, _ = load_and_validate(app / "pyproject.toml")
    with ZipFile(BytesIO(build_fab_from_disk(app))) as bundle:
        names = set(bundle.namelist())
    assert {"LICENSE", "pyproject.toml", *ENTRIES} <= names
    assert not any(name.startswith(("fedgrpo/", "tests/")) for name in names)
    assert config["tool"]["flwr"]["app"]["components"]["serverapp"] == "server.app:app"


def test_those_without_the_repository_get_the_same_entries() -> None:
    for name, text in ENTRIES.items():
        _, _, code = (ROOT / name).read_text().rpartition('"""')
        assert code.strip() == text.strip()


def test_the_minimal_app_offers_every_setting(tmp_path: Path) -> None:
    app = stage_app(None, tmp_path / "fedgrpo-app")
    table = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert Settings.from_mapping(table) == Settings()


def test_the_nearest_app_above_a_scenario_is_taken(tmp_path: Path) -> None:
    assert find_app(ROOT / "simulations", tmp_path) == ROOT
    assert find_app(tmp_path, ROOT / "tests" / "federation") == ROOT
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'no-flower-app'\n")
    assert find_app(tmp_path) is None


def test_a_pattern_without_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.flwr.app]\nfab-include = ['LICENSE']\n[tool.flwr.app.components]\n"
    )
    with pytest.raises(RunError, match="no file LICENSE"):
        stage_app(tmp_path, tmp_path / "staged")
