"""A scenario file with what the command line puts in the place of its values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import absolute_part, brings_code, join_names, split_names
from fedgrpo.settings import FROM_PRESET, PRESETS, Scalar, Settings, read_toml
from fedgrpo.settings.starts import with_start

PARTS = (
    "data.tasks",
    "reward.functions",
    "reward.evaluation",
    "privacy.metrics",
    "grpo.advantage",
    "grpo.loss",
    "grpo.credit",
    "grpo.guidance",
    "grpo.engine",
    "robust.rule",
    "server.optimiser",
    "simulation.attack",
    "run.report_to",
)
"""Settings that name parts, which may come from files."""


def load_scenario(scenario: Path, overrides: Mapping[str, object], base: Path) -> Settings:
    """Read a scenario, put overrides in place, and make its paths absolute.

    Only the outcome has to be valid: an override may mend what the file alone could not be.

    Parameters
    ----------
    scenario:
        TOML file of settings.
    overrides:
        Dotted keys with values that take the place of the file's.
    base:
        Folder that relative paths are read from.

    Raises
    ------
    SettingsError
        For every key or value that is not valid.
    """
    return with_absolute_paths(read_scenario(scenario, overrides, base), base)


def read_scenario(scenario: Path, overrides: Mapping[str, object], base: Path) -> Settings:
    """Read a scenario as :func:`load_scenario` does, and leave its paths as they are written: for
    machines other than this one. Raises SettingsError for every key or value that is not valid.
    """
    tree = _filled(_with_dotted(read_toml(scenario), overrides), base)
    return Settings.from_mapping(tree)


def _filled(tree: dict[str, Any], base: Path) -> dict[str, Any]:
    """Put what lies in files of this machine into the settings, which travel."""
    return _with_template(_with_preset(with_start(tree), base), base)


def _with_template(tree: dict[str, Any], base: Path) -> dict[str, Any]:
    """Read the chat template that a .jinja file holds."""
    data: object = tree.get("data")
    name = data.get("chat_template") if isinstance(data, dict) else None
    if not isinstance(name, str) or "{" in name or not name.lower().endswith((".jinja", ".j2")):
        return tree
    try:
        text = (base / Path(name).expanduser()).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"data.chat_template = {name!r} cannot be read ({type(error).__name__})",
            cure="name a UTF-8 file of this machine, or one of the tokenizer's templates",
        ) from None
    if "{" not in text:
        raise SettingsError(
            f"data.chat_template = {name!r} holds no template: nothing of a chat would be in it",
            cure="write one in Jinja into it, or name another file",
        )
    return tree | {"data": {**dict(data or {}), "chat_template": text}}  # type: ignore[call-overload]


def _with_preset(tree: dict[str, Any], base: Path) -> dict[str, Any]:
    """Fill a preset from a module or file in for good: settings that travel run nothing when they
    are read.
    """
    grpo: object = tree.get("grpo")
    if not isinstance(grpo, dict) or not brings_code(name := str(grpo.get("preset", ""))):
        return tree
    preset = PRESETS[absolute_part(name, base)]
    own = {k: v for k, v in grpo.items() if k != "preset" and (k not in FROM_PRESET or v != "")}
    return tree | {"grpo": preset.settings() | own}


def settings_from(source: Settings | Mapping[str, Any] | str | Path, base: Path) -> Settings:
    """Read settings from whatever Python code has at hand, and make their paths absolute.

    Parameters
    ----------
    source:
        Settings; a mapping, nested or with dotted keys (``{"robust.rule": "median"}``); or the path
        of a scenario.
    base:
        Folder that relative paths are read from.

    Raises
    ------
    SettingsError
        For every key or value that is not valid.
    """
    if isinstance(source, Settings):
        return with_absolute_paths(source, base)
    if isinstance(source, str | Path):
        return load_scenario(Path(source), {}, base)
    nested = {key: value for key, value in source.items() if "." not in key}
    dotted = {key: value for key, value in source.items() if "." in key}
    tree = _filled(_with_dotted(nested, dotted), base)
    return with_absolute_paths(Settings.from_mapping(tree), base)


def _with_dotted(tree: Mapping[str, Any], dotted: Mapping[str, object]) -> dict[str, Any]:
    """Put values with dotted keys into a nested mapping, in the place of what is there."""
    made = {key: dict(v) if isinstance(v, Mapping) else v for key, v in tree.items()}
    for key, value in dotted.items():
        section, _, name = key.partition(".") if "." in key else ("", "", key)
        if section and not isinstance(made.get(section), dict):
            made[section] = {}
        _put(made[section] if section else made, name, value)
    return made


def _put(section: dict[str, Any], name: str, value: object) -> None:
    """Put a value in place; ``columns.prompt`` is an item of a table."""
    name, _, inner = name.partition(".")
    table = section.get(name)
    own = table if isinstance(table, dict) else {}
    section[name] = {**own, inner: value} if inner else value


def with_absolute_paths(settings: Settings, base: Path) -> Settings:
    """Resolve local paths against ``base``, because the run's processes are at home in other
    directories.

    Names that are no paths (``tasks``, ``hf:NAME``, Hub models, parts that are built in or of a
    module) stay as they are.
    """
    flat = settings.to_run_config()
    changed: dict[str, Scalar] = {
        key: join_names(absolute_part(name, base) for name in split_names(str(flat[key])))
        for key in PARTS
    }
    changed |= {
        "data.source": absolute_source(settings.data.source, base),
        "evaluation.source": absolute_source(settings.evaluation.source, base),
    }
    if (base / Path(settings.model.name).expanduser()).is_dir() and settings.model.name != "tiny":
        changed["model.name"] = _absolute(settings.model.name, base)
    return Settings.from_run_config(flat | changed)


def absolute_source(source: str, base: Path) -> str:
    """Resolve a source of prompts against ``base``, unless it is no path."""
    named = source in {"", "tasks"} or source.startswith("hf:")
    return source if named else _absolute(source, base)


def _absolute(path: str, base: Path) -> str:
    return str((base / Path(path).expanduser()).resolve())
