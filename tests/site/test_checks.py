"""Every limit holds against settings that a server may choose at will."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedgrpo.ground.errors import PolicyError
from fedgrpo.settings import Settings
from fedgrpo.site import (
    CURES,
    Policy,
    Refusal,
    broken_limits,
    check_round,
    fingerprint,
)

NOON = datetime.fromisoformat("2026-11-21T12:00:00")
OPEN: dict[str, Any] = {
    "prompt": {"largest_epsilon": 8.0},
    "client": {"largest_epsilon": 8.0},
    "models": ["tiny"],
    "rewards": ["exact_match"],
}


MEMBERS = [f"{number:064x}{number + 64:064x}" for number in range(5)]
AGREED: dict[str, Any] = {
    "protocols": ["committee"],
    "noise_by": ["committee"],
    "committee": MEMBERS[:4],
}


def committee(*members: str, **flat: Any) -> dict[str, Any]:
    """Settings of a run over these members."""
    names = {"aggregation__committee": ", ".join(members)}
    return {"aggregation__protocol": "committee", "privacy__noise": "server"} | names | flat


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
        ({"largest_clipping_norm": 0.5}, {}, Refusal.CLIPPING_NORM),
        ({"least_bucket": 4}, {}, Refusal.BUCKET_SIZE),
        ({"protocols": ["committee"]}, {}, Refusal.PROTOCOL),
        ({}, {"aggregation__protocol": "plain"}, Refusal.PROTOCOL),
        ({"models": []}, {}, Refusal.MODEL),
        ({"models": ["tiny@v1"]}, {}, Refusal.MODEL),
        ({"models": ["tiny"]}, {"model__revision": "refs/pr/7"}, Refusal.MODEL),
        ({"rewards": []}, {}, Refusal.REWARD),
        ({}, {"reward__functions": "exact_match, evil.module:f"}, Refusal.REWARD),
        ({"rewards": ["exact_match"]}, {"reward__functions": "exact_match(x=1)"}, Refusal.REWARD),
        ({}, {"grpo__loss": "/l.py:f"}, Refusal.CODE),
        ({}, {"grpo__advantage": "a.module:f(x=1)"}, Refusal.CODE),
        ({"code": ["/l.py:f"]}, {"grpo__loss": "/l.py:f(x=1)"}, Refusal.CODE),
        ({}, {"grpo__credit": "/l.py:f", "privacy__unit": "client"}, Refusal.CODE),
        ({}, {"grpo__guidance": "/l.py:f", "privacy__unit": "client"}, Refusal.CODE),
        ({}, {"grpo__loss": "a:" * 3000}, Refusal.CODE),
        ({"metrics": ["reward"]}, {}, Refusal.METRICS),
        ({"noise_by": ["server"]}, {"privacy__noise": "server"}, Refusal.METRICS),
        ({"without_privacy": True}, {"privacy__unit": "none"}, Refusal.METRICS),
        ({"hours": "20:00-06:00"}, {}, Refusal.HOURS),
        (AGREED | {"protocols": ["buckets"]}, committee(*MEMBERS[:4]), Refusal.PROTOCOL),
        (AGREED | {"noise_by": ["server"]}, committee(*MEMBERS[:4]), Refusal.NOISE_PLACE),
        (AGREED, committee(*MEMBERS[1:]), Refusal.COMMITTEE),
        (AGREED, committee(), Refusal.COMMITTEE),
        (AGREED, committee(*MEMBERS), Refusal.COMMITTEE),
        (AGREED | {"protocols": ["*"], "committee": []}, committee(*MEMBERS[:4]),
         Refusal.COMMITTEE),
        (AGREED | {"without_privacy": True}, committee(*MEMBERS[:4], privacy__unit="none"),
         Refusal.METRICS),
        (AGREED | {"metrics": ["reward"]}, committee(*MEMBERS[:4]), Refusal.METRICS),
    ],
)  # fmt: skip
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
        ({"models": ["tiny@v1"]}, {"model__revision": "v1"}),
        ({"models": ["*"], "rewards": ["*"]}, {"reward__functions": "a.module:f"}),
        ({"code": ["/l.py:f(x=1)"]}, {"grpo__loss": "/l.py:f(x=1)"}),
        ({"code": ["*"]}, {"grpo__advantage": "a.module:f"}),
        ({}, {"grpo__loss": "sapo(positive=1.5)", "robust__rule": "/l.py:f"}),
        ({"hours": "08:00-18:00"}, {}),
        ({"protocols": ["plain"]}, {"aggregation__protocol": "plain"}),
        (AGREED, committee(*MEMBERS[:4])),
        (AGREED, committee(*reversed(MEMBERS[:4]))),
        (AGREED, committee(*(f"{keys}@host:{1000}" for keys in MEMBERS[:4]))),
        (AGREED | {"committee": MEMBERS}, committee(*MEMBERS[1:])),
        (AGREED | {"committee": MEMBERS}, committee(*MEMBERS)),
    ],
)  # fmt: skip
def test_what_a_site_allows_passes(limits: dict[str, Any], run: dict[str, Any]) -> None:
    check_round(policy(**limits), settings(**run), 1.0, NOON)


def test_members_that_a_site_does_not_agree_to_are_named_in_its_own_log() -> None:
    with pytest.raises(PolicyError) as caught:
        check_round(policy(**AGREED), settings(**committee(*MEMBERS[1:])), 1.0, NOON)
    assert fingerprint(MEMBERS[4]) in caught.value.problem
    assert fingerprint(MEMBERS[1]) not in caught.value.problem


@given(st.text("0123456789abcdef", min_size=128, max_size=128))
def test_one_digit_makes_another_member(keys: str) -> None:
    other = keys[:-1] + ("0" if keys[-1] != "0" else "1")
    assume(keys[:64] not in {name[:64] for name in MEMBERS})
    assert fingerprint(keys) != fingerprint(other)
    run = settings(**committee(*MEMBERS[1:4], other))
    limits = policy(**AGREED | {"committee": [*MEMBERS[1:4], keys]})
    assert Refusal.COMMITTEE in dict(broken_limits(limits, run))


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


OWN = "/site/figures.py:short_share(longest=5)"


@pytest.mark.parametrize(
    ("limits", "codes"),
    [
        ({}, [Refusal.CODE, Refusal.METRICS]),
        ({"code": [OWN]}, [Refusal.METRICS]),
        ({"code": ["*"], "metrics": ["reward"]}, [Refusal.METRICS]),
        ({"metrics": ["reward", OWN]}, [Refusal.CODE]),
        ({"code": [OWN.replace("5", "6")], "metrics": ["reward", OWN]}, [Refusal.CODE]),
        ({"code": [OWN], "metrics": ["reward", OWN]}, []),
    ],
)
def test_a_metric_of_a_file_is_run_and_told_where_the_policy_names_it_for_both(
    limits: dict[str, Any], codes: list[Refusal]
) -> None:
    broken = broken_limits(policy(**limits), settings(privacy__metrics=f"reward, {OWN}"))
    assert [code for code, _ in broken] == codes
    assert all(OWN in problem for _, problem in broken)
    assert all(CURES[code] for code in codes)
