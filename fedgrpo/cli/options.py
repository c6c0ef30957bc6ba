"""Options that several commands share, and what ``--set rounds=3`` means."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.ground.errors import SettingsError

Scenario = Annotated[Path, typer.Argument(help="TOML file of settings.", show_default=False)]
"""What a command is about."""

RunDir = Annotated[
    Path | None,
    typer.Option(
        help="Where to write. An unfinished run of the same settings there is resumed.  "
        "[default: runs/SCENARIO]",
        show_default=False,
    ),
]
"""Where a run goes, for every command that makes one."""

Fresh = Annotated[bool, typer.Option("--fresh", help="Begin a new run beside an unfinished one.")]
"""Whether an unfinished run is left alone, for every command that could resume it."""

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Put a value in the place of the scenario's, for example --set rounds=3. "
        "May be repeated. `fedgrpo settings` lists the keys.",
        show_default=False,
    ),
]
"""The option, for every command that takes a scenario."""


def parse_overrides(overrides: Sequence[str] | None) -> dict[str, object]:
    """Read ``key=value`` pairs. A value is TOML, or text without quotes: ``robust.rule=mean``.
    Raises SettingsError if one is no pair, or a key comes twice.
    """
    parsed: dict[str, object] = {}
    for override in overrides or ():
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {override!r} is no KEY=VALUE", cure="write --set rounds=3")
        if (name := key.strip()) in parsed:
            raise SettingsError(f"--set gives {name} twice", cure="leave one of the two out")
        try:
            parsed[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[name] = value.strip()
    return parsed
