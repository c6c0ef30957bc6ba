"""The page for a lawyer follows the policy and the account, and leaves no term unexplained."""

from typing import Any

import pytest

from fedgrpo.privacy import epsilon_gaussian
from fedgrpo.site import Entry, Policy, explain, fingerprint

OPEN: dict[str, Any] = {
    "prompt": {"largest_epsilon": 2.0},
    "models": ["tiny"],
    "rewards": ["exact_match"],
    "prompts_declared": 1900,
    "longest_prompt_tokens": 400,
    "answer_after_s": 600.0,
}

MEMBERS = [f"{number:064x}{number + 64:064x}" for number in range(4)]
COMMITTEE: dict[str, Any] = {
    "protocols": ["committee"],
    "noise_by": ["committee"],
    "committee": MEMBERS,
}


FIVE = {"committee": [*MEMBERS, "f" * 128]}


def page(entries: tuple[Entry, ...] = (), **changed: Any) -> str:
    text = explain(Policy.model_validate(OPEN | changed), entries)
    return " ".join(text.split())


def release(unit: str = "prompt", noise: float = 2.0) -> Entry:
    return Entry("2026-11-21T12:00:00", 1, 1, "a" * 64, unit, noise, 1.0)


def test_it_fits_on_a_page() -> None:
    text = explain(Policy.model_validate(OPEN), ())
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 88


def test_a_committee_takes_a_dozen_lines_more() -> None:
    text = explain(Policy.model_validate(OPEN | COMMITTEE), ())
    assert len(text.splitlines()) <= 92
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "This site's limit is 2"),
        ({}, "at most 88.08 % sure"),
        ({}, "Models that may be used here: tiny."),
        ({"models": ["*"]}, "Models that may be used here: whatever the server names."),
        ({"rewards": []}, "Programs that may score answers here: none."),
        ({"least_bucket": 5}, "a group of at least 5"),
        ({"metrics": []}, "No figures about the training itself leave."),
        ({"metrics": ["reward"]}, "no others: how well the model's answers scored."),
        ({"metrics": ["reward", "a.py:f"]}, "answers scored; what 'a.py:f' measures."),
        ({"metrics_without_noise": True}, "where only the sum hides them"),
        ({"curated": True}, "with its manifest beside"),
        ({"hours": "20:00-06:00"}, "between 20:00-06:00 (local time)"),
        ({"without_privacy": True}, "ALSO allows runs without random noise"),
        ({"noise_by": ["client", "server"]}, "or by the server, after"),
        ({"prompt": {"least_noise": 1.5}}, "at least 1.5 times"),
        ({"prompt": None}, "allows no kind of run, so nothing leaves"),
        ({"client": {"largest_epsilon": 3.0}}, "your organisation's whole part"),
        ({"protocols": ["buckets", "plain"]}, "ALSO allows runs in which the server is shown"),
        (
            {},
            "at most 1900 texts here and that the longest prompt used has at most 400",
        ),
        (
            {"prompts_declared": 0, "longest_prompt_tokens": 0},
            "Nothing about your prompts has been",
        ),
        ({}, "an answer leaves 600 seconds after the server asked, never sooner or later"),
        ({"answer_after_s": 0.0}, "names no time for answers, so runs that hide a prompt"),
        ({"spent": "account.jsonl"}, "'account.jsonl'"),
        (COMMITTEE, "ANY TWO MEMBERS TOGETHER SEE YOUR UPDATE, without noise"),
        (COMMITTEE, "One member by itself learns nothing from its shares."),
        (COMMITTEE, "every release is counted by what such a member could learn"),
        (COMMITTEE, "What the server may be shown: the result of a committee."),
        (COMMITTEE, "relied upon that no two members conspire"),
        (COMMITTEE, "If one of the four falls silent, the round ends without a result, and so"),
        (COMMITTEE | FIVE, "Four of these 5 compute a round, and others"),
        (COMMITTEE | FIVE, "ANY TWO OF ALL 5 could see every update"),
        (COMMITTEE | {"committee": []}, "every run with a committee is refused"),
        ({"protocols": ["buckets", "committee"]}, "a group of at least 3"),
    ],
)
def test_it_says_what_the_policy_says(changed: dict[str, Any], said: str) -> None:
    assert said in page(**changed)


def test_the_members_are_named_by_fingerprints_that_their_operators_can_compare() -> None:
    text = page(**COMMITTEE)
    assert all(fingerprint(keys) in text for keys in MEMBERS)
    assert not any(keys in text for keys in MEMBERS)


def test_what_a_policy_refuses_is_not_on_the_page() -> None:
    assert "committee" not in page()
    assert "one-time secret masks" not in page(**COMMITTEE)
    assert "No other participant is relied upon" not in page(**COMMITTEE)


def test_it_says_what_was_spent() -> None:
    assert "Nothing: no release has been made" in page()
    text = page((release(), release(noise=0.0, unit="none")))
    assert "2 of at most 1000 releases" in text
    assert f"epsilon {epsilon_gaussian(2.0, 1, 1e-5):.2f} of 2." in text
    assert "1 releases were made without noise" in text


def test_terms_are_explained_where_they_are_first_used() -> None:
    text = page()
    for term in ("update", "epsilon", "delta"):
        assert f"called {term}" in text or f": the {term}" in text, term
    for jargon in ("gradient", "adapter", "clipping", "Gaussian", "sensitivity", "rollout"):
        assert jargon not in text


def default_run() -> tuple[Entry, ...]:
    """24 rounds at 24 of 2000 prompts and noise 1: epsilon 0.58."""
    return (Entry("2026-11-21T12:00:00", 1, 1, "a" * 64, "prompt", 1.0, 0.012),) * 24


@pytest.mark.slow
def test_it_says_what_copies_and_a_replaced_prompt_cost() -> None:
    text = page(default_run())
    assert "could tell it from an empty prompt in its place" in text
    assert "epsilon 0.58 of 2." in text
    assert "Against another prompt in its place, instead of an empty one, it is 0.64" in text
    assert "If 2, 5 or 10 participants hold the same prompt" in text
    assert "0.7, 0.9 or 1.2 where each of them adds its own noise." in text
    assert "one noise covers them all" not in text


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"noise_by": ["server"]}, COMMITTEE])
def test_where_one_noise_covers_all_copies_it_says_what_that_costs(changed: dict[str, Any]) -> None:
    text = page(default_run(), **changed)
    assert "1.2, 3.2 or 6.5 where one noise covers them all." in text
    assert ("adds its own noise" in text) == ("noise_by" not in changed)


def test_without_releases_copies_are_warned_of_only() -> None:
    assert "participants hold the same prompt" not in page()
    assert "A prompt that other participants hold too is less protected" in page()
