"""A policy file says what it means, or is refused by key."""

import tomllib
from datetime import datetime
from pathlib import Path

import pytest

from fedgrpo.ground.errors import PolicyError
from fedgrpo.settings import METRICS
from fedgrpo.site import Policy, Refusal

TEMPLATE = Path(__file__).parents[2] / "clients" / "policy.toml"


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return Policy.from_toml(path)


def test_an_empty_file_allows_no_unit_no_model_and_no_reward(tmp_path: Path) -> None:
    policy = read(tmp_path, "")
    assert policy.limits("prompt") is policy.limits("client") is policy.limits("none") is None
    assert policy.models == policy.rewards == policy.committee == ()
    assert not policy.without_privacy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("least_buckets = 3", "least_buckets = 3"),
        ("least_bucket = 2", "least_bucket = 2"),
        ("least_bucket = '3'", "least_bucket = '3'"),
        ("delta = 1.0", "delta = 1.0"),
        ("metrics = ['length']", "privacy.metrics = 'length' is unknown"),
        ("metrics = ['f.py:g(1)']", "privacy.metrics = 'f.py:g(1)' cannot be read"),
        ("hours = 'at night'", "write hours as 20:00-06:00"),
        ("hours = '25:00-06:00'", "hours = '25:00-06:00'"),
        ("[prompt]\nlargest_epsilon = 0", "prompt.largest_epsilon = 0"),
        ("[prompt]\nleast_noise = -1.0", "prompt.least_noise = -1.0"),
        ("spent = ' '", "spent names no file"),
        (f"committee = ['{'a' * 128}@host:1']", "without an address"),
        (f"committee = ['{'A' * 128}']", "128 hex digits"),
        ("committee = ['*']", "128 hex digits"),
        (f"committee = ['{'a' * 128}', '{'a' * 128}']", "name each member once"),
        (f"committee = ['{'a' * 128}']", "1 members make no committee of 4"),
        ("models = [", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_a_cure(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(tmp_path, text)
    assert problem in caught.value.problem
    assert caught.value.code == Refusal.POLICY_FILE
    assert caught.value.cure


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="FileNotFoundError"):
        Policy.from_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("hours", "time", "is_open"),
    [
        ("", "03:00", True),
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "18:00", False),
        ("08:00-18:00", "03:00", False),
        ("20:00-06:00", "23:59", True),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "12:00", False),
    ],
)
def test_hours_may_cross_midnight(hours: str, time: str, is_open: bool) -> None:
    now = datetime.fromisoformat(f"2026-11-21T{time}:00")
    assert Policy(hours=hours).open_at(now) is is_open


def test_the_template_is_a_policy_and_shows_every_key_with_its_default() -> None:
    given = tomllib.loads(TEMPLATE.read_text())
    assert set(given) == set(Policy.model_fields) - {"client"}
    assert "# [client]" in TEMPLATE.read_text()
    policy, default = Policy.from_toml(TEMPLATE), Policy()
    chosen = {"models", "rewards", "prompt"}
    for name in set(given) - chosen:
        assert getattr(policy, name) == getattr(default, name), name


def test_every_key_says_what_it_means() -> None:
    assert all(field.description for field in Policy.model_fields.values())


def test_the_metrics_that_a_policy_knows_are_those_that_are_released() -> None:
    assert Policy().metrics == tuple(METRICS)
