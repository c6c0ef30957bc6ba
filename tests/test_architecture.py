"""Arrows go one way: no room knows a room above it, and only federation/ knows Flower."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fedgrpo"

FORBIDDEN = {
    "data": ("flwr", "torch", "fedgrpo.federation", "fedgrpo.grpo", "fedgrpo.rewards"),
    "rewards": ("flwr", "fedgrpo.federation", "fedgrpo.grpo"),
    "model": ("flwr", "fedgrpo.federation", "fedgrpo.grpo", "fedgrpo.rewards"),
    "grpo": ("flwr", "fedgrpo.federation", "fedgrpo.secure", "fedgrpo.robust", "fedgrpo.privacy"),
    "standalone": (
        "flwr",
        "fedgrpo.federation",
        "fedgrpo.secure",
        "fedgrpo.robust",
        "fedgrpo.privacy",
    ),
    "privacy": ("flwr", "fedgrpo.federation", "fedgrpo.grpo", "fedgrpo.secure"),
    "site": ("flwr", "torch", "fedgrpo.federation", "fedgrpo.grpo", "fedgrpo.rewards"),
    "secure": ("flwr", "torch", "transformers", "fedgrpo.federation", "fedgrpo.grpo"),
    "ledger": ("flwr", "torch", "fedgrpo.federation", "fedgrpo.grpo", "fedgrpo.secure"),
    "robust": ("flwr", "torch", "fedgrpo.federation", "fedgrpo.grpo", "fedgrpo.secure"),
    "attacks": ("flwr", "torch", "fedgrpo.federation", "fedgrpo.grpo"),
    "report": ("flwr", "torch", "fedgrpo.federation", "fedgrpo.grpo"),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_knows_nothing_above_it(room: str) -> None:
    files = sorted((PACKAGE / room).glob("**/*.py"))
    assert files
    for path in files:
        for name in imports(path):
            above = [bad for bad in FORBIDDEN[room] if name == bad or name.startswith(f"{bad}.")]
            assert not above, f"{path.relative_to(PACKAGE)} imports {name}"


def test_only_the_federation_room_imports_flower() -> None:
    others = [p for p in PACKAGE.glob("**/*.py") if "federation" not in p.parts]
    assert not [p for p in others for name in imports(p) if name.split(".")[0] == "flwr"]


def test_no_file_is_longer_than_500_lines() -> None:
    assert all(len(p.read_text().splitlines()) <= 500 for p in PACKAGE.glob("**/*.py"))


def test_nobody_asks_which_protocol_runs() -> None:
    """Who needs to know asks the protocol itself, see fedgrpo.settings.protocols."""
    asks = re.compile(r"protocol *(==|!=)|protocol in \(|noise_by\(")
    texts = {path: path.read_text() for path in PACKAGE.glob("**/*.py")}
    assert not [str(path) for path, text in texts.items() if asks.search(text)]
