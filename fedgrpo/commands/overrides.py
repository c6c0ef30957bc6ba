"""Values that the command line puts in the place of a scenario's: ``--set rounds=3``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Annotated

import typer

from fedgrpo.errors import SettingsError

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

    Raises
    ------
    SettingsError
        If one is no pair.
    """
    parsed: dict[str, object] = {}
    for override in overrides or ():
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {override!r} is no KEY=VALUE", cure="write --set rounds=3")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = value.strip()
    return parsed
