"""What a run's directory keeps of its settings, read where it lies now."""

from pathlib import Path

import pytest

from fedgrpo.settings import Settings
from fedgrpo.settings.snapshot import read_snapshot, snapshot_text


def kept(place: str, here: Path) -> Settings:
    tree = {
        "data": {"source": "/old/me/work/prompts.jsonl"},
        "model": {"name": "/old/me/models/base"},
        "reward": {"functions": ["exact_match", "/old/me/work/a.py:f", "/old/me/work/b.py:g"]},
    }
    here.mkdir(parents=True)
    text = snapshot_text("train", Path(place), Settings.from_mapping(tree))
    (here / "settings.json").write_text(text)
    command, settings = read_snapshot(here / "settings.json")
    assert command == "train"
    return settings


def test_paths_go_along_when_the_folder_around_a_run_is_moved(tmp_path: Path) -> None:
    settings = kept("/old/me/work/runs/s", tmp_path / "new" / "work" / "runs" / "s")
    new = tmp_path / "new"
    assert settings.data.source == f"{new}/work/prompts.jsonl"
    assert settings.model.name == f"{new}/models/base"
    assert settings.reward.functions == ("exact_match", f"{new}/work/a.py:f", f"{new}/work/b.py:g")


@pytest.mark.parametrize("place", ["/old/me/work/runs/other", "/runs/s", "/s"])
def test_paths_stay_when_the_run_alone_was_moved(tmp_path: Path, place: str) -> None:
    settings = kept(place, tmp_path / "runs" / "s")
    assert settings.data.source == "/old/me/work/prompts.jsonl"


def test_what_was_not_moved_is_read_as_it_was_written(tmp_path: Path) -> None:
    settings = Settings.from_mapping({"rounds": 7, "grpo": {"preset": "grpo"}})
    (tmp_path / "settings.json").write_text(snapshot_text("simulate", tmp_path, settings))
    command, found = read_snapshot(tmp_path / "settings.json")
    assert (command, found.fingerprint()) == ("simulate", settings.fingerprint())
