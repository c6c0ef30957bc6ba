"""A site's public figures decide, and nothing that its prompts could change."""

import math
from pathlib import Path
from typing import Any

import pytest

from fedgrpo.ground.errors import PolicyError
from fedgrpo.settings import Settings
from fedgrpo.site import Declared, Policy, Refusal, broken_declarations, declared_by
from fedgrpo.site.absent import broken_without_policy

PUBLIC: dict[str, Any] = {
    "prompts_declared": 2000,
    "longest_prompt_tokens": 100,
    "answer_after_s": 600.0,
}


def settings(**flat: Any) -> Settings:
    return Settings.from_run_config({k.replace("__", "."): v for k, v in flat.items()})


def codes(run: Settings, **changed: Any) -> list[Refusal]:
    policy = Policy.model_validate(PUBLIC | changed)
    return [code for code, _ in broken_declarations(policy, run)]


@pytest.mark.parametrize(
    ("changed", "run", "broken"),
    [
        ({}, {}, []),
        ({"prompts_declared": 1999}, {}, [Refusal.DECLARED]),
        ({"prompts_declared": 0}, {}, [Refusal.DECLARED]),
        ({"prompts_declared": 0}, {"privacy__unit": "client"}, []),
        ({"longest_prompt_tokens": 0}, {}, [Refusal.LONGEST_PROMPT]),
        ({"longest_prompt_tokens": 512}, {}, []),
        ({"longest_prompt_tokens": 513}, {}, [Refusal.LONGEST_PROMPT]),
        ({"longest_prompt_tokens": 513}, {"privacy__unit": "client"}, [Refusal.LONGEST_PROMPT]),
        ({"answer_after_s": 0.0}, {}, [Refusal.ANSWER_TIME]),
        ({"answer_after_s": 3600.0}, {}, [Refusal.ANSWER_TIME]),
        ({"answer_after_s": 3599.9}, {}, []),
        (dict.fromkeys(PUBLIC, 0), {"privacy__unit": "none"}, []),
    ],
)
def test_a_run_is_held_against_what_is_declared(
    changed: dict[str, Any], run: dict[str, Any], broken: list[Refusal]
) -> None:
    as_given = {k: float(v) if k == "answer_after_s" else v for k, v in changed.items()}
    assert codes(settings(**run), **as_given) == broken


def test_a_simulated_node_is_its_own_site() -> None:
    run = settings(grpo__max_prompt_length=77)
    assert declared_by({"partition-id": 3}, run) == Declared(0, 77, (), 0.0, any_weights=False)


def test_a_deployed_node_declares_what_its_policy_says(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        "prompts_declared = 1300\nlongest_prompt_tokens = 40\nanswer_after_s = 30.5\n"
        "stateless_rewards = ['a.b:c']\nany_weights = true\n"
    )
    declared = declared_by({"policy": str(path)}, settings())
    assert declared == Declared(1300, 40, ("a.b:c",), 30.5, any_weights=True)


def test_work_ends_before_the_answer_leaves() -> None:
    assert Declared(1, 1, (), 60.0, any_weights=False).work_s == 58.0
    assert Declared(1, 1, (), 0.0, any_weights=False).work_s == math.inf


def test_a_policy_that_cannot_be_read_declares_nothing(tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        declared_by({"policy": str(tmp_path / "none.toml")}, settings())


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        ({"reward__functions": "exact_match, a.py:f"}, Refusal.REWARD,
         'rewards = ["exact_match", "a.py:f"]'),
        ({"model__name": "a/b"}, Refusal.MODEL, 'models = ["a/b"]'),
        ({"privacy__unit": "none"}, Refusal.UNIT, "without_privacy = true"),
        ({"aggregation__protocol": "plain"}, Refusal.PROTOCOL, 'protocols = ["plain"]'),
        ({}, Refusal.DECLARED, "prompts_declared = 1000"),
    ],
)  # fmt: skip
def test_without_a_policy_the_gravest_comes_first_with_the_line_that_allows_it(
    run: dict[str, Any], code: Refusal, line: str
) -> None:
    first = next(broken_without_policy(settings(**run)))
    assert first[0] is code
    assert first[1].endswith(f"this line would allow it: {line}")


def test_the_lines_that_are_named_are_those_of_a_policy(tmp_path: Path) -> None:
    run = settings(
        reward__functions="a:b", model__name="a/b", privacy__unit="none",
        aggregation__protocol="plain", privacy__metrics="reward, a.py:f",
    )  # fmt: skip
    lines = [problem.rpartition(": ")[2] for _, problem in broken_without_policy(run)]
    (tmp_path / "policy.toml").write_text("\n".join(lines))
    policy = Policy.from_toml(tmp_path / "policy.toml")
    assert (policy.rewards, policy.models, policy.protocols) == (("a:b",), ("a/b",), ("plain",))
    assert policy.code == ("a.py:f",)
    assert policy.metrics == ("reward", "a.py:f")
    assert policy.without_privacy
    assert policy.prompts_declared
