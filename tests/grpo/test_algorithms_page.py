"""docs/algorithms.md keeps up with the code."""

import re
from pathlib import Path

import pytest

from fedgrpo.grpo import ADVANTAGES, LOSSES, PRESETS, Preset

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text("utf-8")


def table(key: str) -> dict[str, str]:
    """Rows of the table with this heading, by the name in their first column."""
    body = PAGE.split(f"| `{key}` |")[1].split("\n\n")[0]
    return {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*$", body, re.MULTILINE)}


@pytest.mark.parametrize(
    ("key", "names"),
    [("grpo.preset", PRESETS), ("grpo.advantage", ADVANTAGES), ("grpo.loss", LOSSES)],
)
def test_page_lists_what_there_is(key: str, names: dict[str, object]) -> None:
    assert set(table(key)) == set(names)


def test_page_says_which_are_private() -> None:
    for key, column, registry in (("grpo.advantage", 3, ADVANTAGES), ("grpo.loss", 4, LOSSES)):
        for name, row in table(key).items():
            private = row.split(" | ")[column - 1].strip()
            assert private == ("no" if registry[name].batch_wide else "yes"), name


def test_page_ties_presets_to_their_parts_and_papers() -> None:
    for name, row in table("grpo.preset").items():
        preset = PRESETS[name]
        assert f"| {preset.title} | `{preset.advantage}`, `{preset.loss}` |" in row
        assert f"| {preset.arxiv} |" in row


def test_examples_of_the_page_run() -> None:
    named: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, named)
    assert isinstance(named["mine"], Preset)
