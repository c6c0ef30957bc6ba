"""A proposed policy lets exactly the agreed run be answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedgrpo.federation.rehearsal import accepting
from fedgrpo.federation.rehearsal.proposal import (
    TRIAL_S,
    OwnFigures,
    answer_after_s,
    propose,
    work_seconds,
)
from fedgrpo.ground.errors import PolicyError
from fedgrpo.settings import Settings
from fedgrpo.site import Policy, Site, broken_limits, check_spending
from fedgrpo.site.account.costs import round_entry
from fedgrpo.site.declared import broken_declarations

OWN = OwnFigures(units=4321, longest_tokens=57, work_s=8.0)
MEMBERS = ",".join(f"{n:064x}{n:064x}@h{n}.example:7443" for n in range(1, 5))
RUNS = {
    "prompts": {},
    "clients": {"privacy.unit": "client", "grpo.steps": 4, "privacy.noise": "server"},
    "none": {"privacy.unit": "none"},
    "plain": {"aggregation.protocol": "plain"},
    "pinned": {"model.name": "org/model", "model.revision": "abc", "rounds": 7},
    "persons": {"data.unit": "patient", "data.source": "prompts.jsonl"},
    "committee": {
        "aggregation.protocol": "committee",
        "aggregation.committee": MEMBERS,
        "privacy.noise": "server",
    },
    "adaptive": {"privacy.unit": "client", "privacy.adaptive": True, "privacy.noise": "server"},
}


def run(name, **more):
    flat = Settings().to_run_config() | {"privacy.max_epsilon": 1e6} | RUNS[name] | more
    return Settings.from_run_config(flat)


def policy_for(settings, tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(propose(settings, OWN))
    return Policy.from_toml(file)


def broken(policy, settings):
    return [*broken_limits(policy, settings), *broken_declarations(policy, settings)]


@pytest.mark.parametrize("name", RUNS)
def test_the_agreed_run_is_answered_to_its_end_and_hardly_longer(name, tmp_path):
    settings = run(name)
    policy = policy_for(settings, tmp_path)
    assert broken(policy, settings) == []
    check_spending(policy, [round_entry(settings)] * settings.rounds)
    with pytest.raises(PolicyError):
        check_spending(policy, [round_entry(settings)] * (2 * settings.rounds))


@pytest.mark.parametrize("name", [name for name in RUNS if name != "prompts"])
def test_another_run_is_refused(name, tmp_path):
    assert broken(policy_for(run("prompts"), tmp_path), run(name))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.name", "other"),
        ("reward.functions", "length(target=3)"),
        ("privacy.noise_multiplier", 0.5),
        ("privacy.clipping_norm", 2.0),
    ],
)
def test_a_setting_that_was_not_agreed_is_refused(key, value, tmp_path):
    assert broken(policy_for(run("prompts"), tmp_path), run("prompts", **{key: value}))


def test_figures_of_prompts_are_rounded_and_never_below_what_the_run_asks_for(tmp_path):
    policy = policy_for(run("prompts"), tmp_path)
    assert (policy.prompts_declared, policy.longest_prompt_tokens) == (4400, 57)
    few = propose(run("prompts"), replace(OWN, units=3))
    assert f"prompts_declared = {run('prompts').data.min_prompts}\n" in few


def test_an_answer_waits_for_four_times_the_work_where_the_run_waits_as_long():
    settings = run("prompts")
    assert answer_after_s(replace(OWN, units=10), settings) == 110.0
    slow = replace(OWN, work_s=1400.0)
    assert answer_after_s(slow, settings) == settings.federation.round_timeout_s * 0.9
    assert work_seconds(TRIAL_S * 3 / 8 + 5.0) == 5.0


def test_what_was_spent_before_is_counted_beside_the_run(tmp_path):
    """Who agrees on a second run with the same prompts is asked for the sum of both."""
    first, second = run("prompts"), run("prompts", rounds=7)
    counted = [round_entry(first)] * first.rounds
    file = tmp_path / "policy.toml"
    file.write_text(propose(second, replace(OWN, counted=tuple(counted))))
    policy = Policy.from_toml(file)
    check_spending(policy, [*counted, *[round_entry(second)] * second.rounds])
    with pytest.raises(PolicyError):
        check_spending(policy, [*counted, *[round_entry(second)] * 2 * second.rounds])


def test_rewards_of_files_are_proposed_as_they_are(tmp_path):
    settings = run("prompts", **{"reward.functions": "rewards.py:correct"})
    own = replace(OWN, reward_hashes={"rewards.py:correct": "a" * 64})
    file = tmp_path / "policy.toml"
    file.write_text(propose(settings, own))
    assert Policy.from_toml(file).reward_hashes == {"rewards.py:correct": "a" * 64}


def charged(policy, settings, rounds):
    spending = Site.open(policy).spending
    for number in range(1, rounds + 1):
        made = round_entry(settings, at="now", run=1, round=number, plan=f"p{number}")
        spending.charge(made, lambda entries: None)


def test_a_policy_is_stale_for_another_run_and_not_for_the_one_that_is_half_paid_for(tmp_path):
    settings, file = run("prompts", rounds=4), tmp_path / "policy.toml"
    file.write_text(propose(settings, OWN))
    assert not accepting.stale(file, settings, {})
    charged(file, settings, 2)
    assert not accepting.stale(file, settings, {}, whole_run=False)
    assert accepting.stale(file, settings, {}), "it pays for no second run"
    assert accepting.stale(file, run("pinned"), {}, whole_run=False)
    assert accepting.stale(tmp_path / "none.toml", settings, {})


def test_a_proposal_for_other_settings_is_not_offered_again(tmp_path):
    file, settings = tmp_path / "policy.toml", run("prompts", rounds=8)
    assert not accepting.proposed_for(file, settings, {})
    policy_for(settings, tmp_path)
    assert accepting.proposed_for(file, settings, {})
    fewer = run("prompts", rounds=7)
    assert not accepting.stale(file, fewer, {}), "it would allow that, and more"
    assert not accepting.proposed_for(file, fewer, {})
