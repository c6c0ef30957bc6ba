"""Whatever a user sets or a server sends, every number is finite and within one table of bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import DataSettings, GRPOSettings, Section, Settings
from fedgrpo.settings.bounds import BOUNDS, TEXT

NUMERIC = (int, float, tuple[float, ...], tuple[int, ...])


def fields(section: type[Section] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting and its type."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            assert kind.prefix() == f"{name}."
            yield from fields(kind, f"{name}.")
        else:
            yield f"{prefix}{name}", kind


KINDS = dict(fields())
NUMBERS = {key: kind for key, kind in KINDS.items() if kind in NUMERIC}


def test_every_number_among_the_settings_is_in_the_table_and_nothing_else_is() -> None:
    assert set(NUMBERS) == set(BOUNDS)


def test_no_setting_is_of_a_type_that_might_hide_a_number() -> None:
    known = {bool, str, tuple[str, ...], *NUMERIC}
    strange = {k for k, kind in KINDS.items() if kind not in known and "Literal" not in str(kind)}
    assert strange == set()


def test_all_bounds_are_finite_and_in_order_and_the_defaults_within() -> None:
    flat = Settings().to_run_config()
    for key, (low, high) in BOUNDS.items():
        assert math.isfinite(low), key
        assert math.isfinite(high), key
        assert low < high, key
        if isinstance(value := flat[key], int | float):
            assert low <= value <= high, key


def given(key: str, value: float) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    listed = [value] if NUMBERS[key] not in (int, float) else value
    return {section: {name: listed}} if section else {name: listed}


@pytest.mark.parametrize("key", sorted(BOUNDS))
def test_what_is_beyond_a_bound_or_not_finite_is_refused_with_key_bounds_and_cure(key: str) -> None:
    low, high = BOUNDS[key]
    beyond: list[float] = [low - max(1, abs(low)), high + max(1, high)]
    if NUMBERS[key] not in (int, tuple[int, ...]):
        beyond = [*map(float, beyond), math.nextafter(high, 1e308)]
        beyond += [math.inf, -math.inf, math.nan, 1.7e308]
    for value in beyond:
        with pytest.raises(SettingsError) as caught:
            Settings.from_mapping(given(key, value))
        assert f"{key} = {value!r} is not in " in caught.value.problem
        assert f"correct {key}" in caught.value.cure


@pytest.mark.parametrize("text", ["inf", "nan", "1e999", "1, -inf", "1, one"])
def test_flowers_texts_are_held_to_the_same_bounds(text: str) -> None:
    flat = Settings().to_run_config() | {"reward.weights": text}
    with pytest.raises(SettingsError, match=r"reward\.weights"):
        Settings.from_run_config(flat)


def test_an_integer_beyond_all_floats_is_refused_like_any_other() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.learning_rate"):
        Settings.from_mapping({"grpo": {"learning_rate": 10**400}})


@pytest.mark.parametrize("letter", ["\x1b", "\x00", "\x08", "\x9b", "\u202e"])
def test_a_text_that_would_move_what_a_terminal_shows_is_refused(letter: str) -> None:
    """A site's people compare a fingerprint and accept a policy there."""
    for config in (
        {"model.name": f"lab/model{letter}[2A"},
        {"reward.functions": f"exact_match, own.py:f(mark='{letter}')"},
    ):
        with pytest.raises(SettingsError, match=r"has .* in it") as refused:
            Settings.from_run_config(config)
        assert letter not in str(refused.value)
    DataSettings(system_prompt="one\n\ttwo – שלום")


def test_a_section_by_itself_is_held_to_them_too() -> None:
    with pytest.raises(ValidationError, match=r"grpo\.temperature = 1e-05 is not in 0\.01 to 100"):
        GRPOSettings(temperature=1e-5)


TEXTS = sorted(key for key, kind in KINDS.items() if kind is str)
LISTS = sorted(key for key, kind in KINDS.items() if "tuple" in str(kind))


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_beyond_all_measure_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(SettingsError, match=key) as caught:
        Settings.from_run_config(Settings().to_run_config() | {key: "x" * (TEXT + 1)})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", LISTS)
def test_a_list_beyond_all_measure_is_refused_and_not_repeated(key: str) -> None:
    item = "reward" if key == "privacy.metrics" else "1"
    with pytest.raises(SettingsError, match=key) as caught:
        Settings.from_run_config(Settings().to_run_config() | {key: ", ".join([item] * 1001)})
    assert len(str(caught.value)) < 1000
