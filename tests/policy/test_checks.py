"""Every limit holds against settings that a server may choose at will."""

from datetime import datetime
from typing import Any

import pytest

from fedgrpo.errors import PolicyError
from fedgrpo.policy import CURES, Policy, Refusal, broken_limits, check_round
from fedgrpo.settings import Settings

NOON = datetime.fromisoformat("2026-11-21T12:00:00")
OPEN: dict[str, Any] = {
    "prompt": {"largest_epsilon": 8.0},
    "client": {"largest_epsilon": 8.0},
    "models": ["tiny"],
    "rewards": ["exact_match"],
}


def policy(**changed: Any) -> Policy:
    return Policy.model_validate(OPEN | changed)


def settings(**flat: Any) -> Settings:
    return Settings.from_run_config({k.replace("__", "."): v for k, v in flat.items()})


def test_a_run_within_the_policy_passes() -> None:
    check_round(policy(), settings(), 1.0, NOON)
    assert broken_limits(policy(), settings()) == ()


@pytest.mark.parametrize(
    ("limits", "run", "code"),
    [
        ({"prompt": None}, {}, Refusal.UNIT),
        ({"client": None}, {"privacy__unit": "client"}, Refusal.UNIT),
        ({}, {"privacy__unit": "none", "privacy__metrics": ""}, Refusal.UNIT),
        ({"prompt": {"least_noise": 1.5}}, {}, Refusal.NOISE),
        ({}, {"privacy__noise": "server", "privacy__metrics": ""}, Refusal.NOISE_PLACE),
        ({}, {"privacy__honest_mates": 1}, Refusal.HONEST_MATES),
        ({"largest_clipping_norm": 0.5}, {}, Refusal.CLIPPING_NORM),
        ({"least_bucket": 4}, {}, Refusal.BUCKET_SIZE),
        ({"protocols": ["committee"]}, {}, Refusal.PROTOCOL),
        ({}, {"aggregation__protocol": "plain"}, Refusal.PROTOCOL),
        ({"models": []}, {}, Refusal.MODEL),
        ({"models": ["tiny@v1"]}, {}, Refusal.MODEL),
        ({"rewards": []}, {}, Refusal.REWARD),
        ({}, {"reward__functions": "exact_match, evil.module:f"}, Refusal.REWARD),
        ({"metrics": ["reward"]}, {}, Refusal.METRICS),
        ({"noise_by": ["server"]}, {"privacy__noise": "server"}, Refusal.METRICS),
        ({"without_privacy": True}, {"privacy__unit": "none"}, Refusal.METRICS),
        ({"hours": "20:00-06:00"}, {}, Refusal.HOURS),
    ],
)
def test_what_breaks_a_limit_is_refused_with_its_code_and_a_cure(
    limits: dict[str, Any], run: dict[str, Any], code: Refusal
) -> None:
    with pytest.raises(PolicyError) as caught:
        check_round(policy(**limits), settings(**run), 1.0, NOON)
    assert caught.value.code == code
    assert caught.value.cure == CURES[code]


@pytest.mark.parametrize(
    ("limits", "run"),
    [
        ({"without_privacy": True, "metrics_without_noise": True}, {"privacy__unit": "none"}),
        ({"without_privacy": True}, {"privacy__unit": "none", "privacy__metrics": ""}),
        ({"noise_by": ["client", "server"], "metrics": []},
         {"privacy__noise": "server", "privacy__metrics": ""}),
        ({"metrics": ["reward"]}, {"privacy__metrics": "reward"}),
        ({"most_honest_mates": 1}, {"privacy__honest_mates": 1}),
        ({"models": ["tiny@v1"]}, {"model__revision": "v1"}),
        ({"models": ["*"], "rewards": ["*"]}, {"reward__functions": "a.module:f"}),
        ({"hours": "08:00-18:00"}, {}),
        ({"protocols": ["plain"]}, {"aggregation__protocol": "plain"}),
    ],
)  # fmt: skip
def test_what_a_site_allows_passes(limits: dict[str, Any], run: dict[str, Any]) -> None:
    check_round(policy(**limits), settings(**run), 1.0, NOON)


def test_the_clipping_norm_of_the_round_counts_not_that_of_the_start() -> None:
    adaptive = settings(privacy__unit="client", privacy__adaptive=True)
    check_round(policy(largest_clipping_norm=2.0), adaptive, 2.0, NOON)
    with pytest.raises(PolicyError, match=r"clipping norm 2\.1"):
        check_round(policy(largest_clipping_norm=2.0), adaptive, 2.1, NOON)


def test_every_broken_limit_is_told_to_who_asks_beforehand() -> None:
    broken = broken_limits(policy(models=[], rewards=[], hours="00:00-00:01"), settings())
    assert [code for code, _ in broken] == [Refusal.MODEL, Refusal.REWARD]


def test_every_code_has_a_cure() -> None:
    assert set(CURES) == set(Refusal)
