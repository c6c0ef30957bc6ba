"""The few files that ``flwr run`` ships: entry modules that import the installed fedgrpo."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedgrpo.ground.errors import RunError
from fedgrpo.settings import Scalar, Settings

INCLUDE = ("LICENSE", "clients/**/*.py", "server/**/*.py")
"""Files of a bundle. Flower's bundle format 1 insists on the license."""
ENTRIES = {
    # Without these, a package called `server` anywhere on Python's path would win.
    "clients/__init__.py": "",
    "server/__init__.py": "",
    "clients/app.py": "from fedgrpo.federation import make_client_app\n\napp = make_client_app()\n",
    "server/app.py": "from fedgrpo.federation import make_server_app\n\napp = make_server_app()\n",
}
"""The entry modules for those who have the wheel and no repository."""
DEPLOYED = ENTRIES | {
    "clients/app.py": """raise ImportError(
    "a site runs the app that is installed there, and none that a server sends: "
    "start its node with 'fedgrpo node'"
)
app = None
""",
}
"""The same for a deployment: whoever would run a site's part of it is told not to."""


def find_app(*starts: Path) -> Path | None:
    """Find the nearest directory upwards whose pyproject.toml describes a Flower app."""
    for start in starts:
        for directory in (start, *start.parents):
            if _app_table(directory / "pyproject.toml"):
                return directory
    return None


def stage_app(source: Path | None, target: Path) -> Path:
    """Copy an app's files, or write the minimal app, into ``target``.

    Flower refuses to bundle a directory with underscores or more than 32 letters in its name; a
    copy works wherever the original lies.

    Parameters
    ----------
    source:
        Directory with pyproject.toml, or None for the minimal app.
    target:
        Directory to make. Its name is letters, digits and hyphens.

    Raises
    ------
    RunError
        If a pattern of the app's ``fab-include`` matches no file.
    """
    if source is None:
        _write_minimal(target, ENTRIES)
        return target
    target.mkdir()
    shutil.copy(source / "pyproject.toml", target)
    for pattern in _app_table(source / "pyproject.toml").get("fab-include", INCLUDE):
        files = [file for file in source.glob(pattern) if file.is_file()]
        if not files:
            raise RunError(
                f"Flower app {source} has no file {pattern}",
                cure="mend fab-include in its pyproject.toml",
            )
        for file in files:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return target


def deployed_app(target: Path) -> Path:
    """Write the app that an operator submits, into ``target``: it has no code for sites."""
    _write_minimal(target, DEPLOYED)
    return target


def config_table() -> str:
    """Write the defaults as ``[tool.flwr.app.config]``: the keys that ``flwr run -c`` knows."""
    return "[tool.flwr.app.config]\n" + to_toml(Settings().to_run_config())


def to_toml(flat: Mapping[str, Scalar]) -> str:
    """Write scalars as TOML, one line each, with dotted keys."""
    # JSON's truth values, numbers and strings are TOML's too, but for pairs of surrogates and DEL.
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in flat.items())
    return "".join(lines).replace("\x7f", "\\u007f")


def _app_table(pyproject: Path) -> dict[str, Any]:
    try:
        with pyproject.open("rb") as file:
            table = tomllib.load(file)["tool"]["flwr"]["app"]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError):
        return {}
    return table if isinstance(table, dict) and "components" in table else {}


def _write_minimal(target: Path, entries: Mapping[str, str]) -> None:
    for name, text in entries.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    (target / "LICENSE").write_text("Apache-2.0\n", "utf-8")
    include = ", ".join(f'"{pattern}"' for pattern in INCLUDE)
    (target / "pyproject.toml").write_text(
        f"""[project]
name = "fedgrpo-app"
version = "{version("fedgrpo")}"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "fedgrpo"
fab-format-version = 1
flwr-version-target = "{version("flwr")}"
fab-include = [{include}]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

{config_table()}""",
        "utf-8",
    )
