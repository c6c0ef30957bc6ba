from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import RewardMixture, SelfConsistency, load_reward
from fedgrpo.rewards.calling.groups import same_prompt_runs
from fedgrpo.rewards.verifiable.self_consistency import final_answer
from tests.models import tiny_trainer

VOTE = SelfConsistency()


@pytest.mark.parametrize(
    ("texts", "rewards"),
    [
        (["it is 4", "4.0", "so 4", "5"], [1, 1, 1, 0]),
        (["4", "4", "5", "no idea"], [1, 1, 0, 0]),
        (["4", "4", "5", "5"], [None] * 4),
        (["4", "5", "6", "7"], [None] * 4),
        (["4", "", "x", "y"], [None] * 4),
        (["", "", "", ""], [None] * 4),
        (["4"], [None]),
        (["-0", "0"], [1, 1]),
        ([r"3 so \boxed{x^{2}}", r"\boxed{x^{2}}", "3"], [1, 1, 0]),
    ],
)
def test_the_majority_of_a_group_is_taken_for_right(texts: list[str], rewards: list[Any]) -> None:
    assert VOTE(["p"] * len(texts), texts) == rewards


def test_every_prompt_votes_by_itself_whether_text_or_chat() -> None:
    assert VOTE(["p", "p", "q", "q"], ["1", "1", "1", "2"]) == [1, 1, None, None]
    chats = [[{"role": "user", "content": text}] for text in "ppq"]
    answers = [[{"role": "assistant", "content": text}] for text in "118"]
    assert VOTE(chats, answers) == [1, 1, None]
    assert same_prompt_runs("aabca") == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]


def test_a_smaller_share_can_be_enough_but_never_a_tie() -> None:
    lenient = SelfConsistency(min_share=0.25)
    assert lenient(["p"] * 5, ["4", "4", "5", "6", "7"]) == [1, 1, 0, 0, 0]
    assert lenient(["p"] * 4, ["4", "4", "5", "5"]) == [None] * 4


def test_whole_texts_can_vote() -> None:
    assert load_reward("self_consistency_text")(["p"] * 3, ["ab", " ab", "b"]) == [1, 1, 0]


@given(st.lists(st.sampled_from(["1", "2", "3", "none"]), min_size=1, max_size=9))
def test_only_a_unique_majority_wins(answers: list[str]) -> None:
    rewards = VOTE(["p"] * len(answers), answers)
    counts = Counter(answer for answer in answers if answer != "none")
    best = max(counts.values(), default=0)
    leaders = [answer for answer, count in counts.items() if count == best]
    if len(answers) < 2 or len(leaders) != 1 or best < len(answers) / 2:
        assert rewards == [None] * len(answers)
    else:
        assert rewards == [float(answer == leaders[0]) for answer in answers]


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_texts_can_vote(texts: list[str]) -> None:
    assert set(VOTE(["p"] * len(texts), texts)) <= {None, 0.0, 1.0}
    assert final_answer("".join(texts)) != ""


def test_a_group_that_abstains_has_no_signal_and_is_no_mistake() -> None:
    mixture = RewardMixture([("vote", SelfConsistency(), 1.0)])
    result = mixture(["p", "p", "q", "q"], ["1", "1", "1", "2"], {})
    assert result.total.tolist() == [1, 1, 0, 0]


def test_other_rewards_must_still_cover_whole_groups() -> None:
    def half(completions: list[str]) -> list[float | None]:
        return [1.0, None]

    mixture = RewardMixture([("vote", SelfConsistency(), 1.0), ("half", half, 1.0)])
    with pytest.raises(RewardError, match="completion 2 of 2"):
        mixture(["p", "p"], ["1", "2"], {})


def test_a_trainer_learns_from_votes_alone() -> None:
    trainer = tiny_trainer(reward=SelfConsistency(min_share=0.25))
    experience = trainer.collect(range(16))
    votes = experience.rewards.per_function["self_consistency"].reshape(16, 4)
    silent = np.isnan(votes).all(1)
    assert 0 < silent.sum() < 16
    advantages = experience.advantages.reshape(16, 4)
    assert not advantages[silent].any()


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(RewardError, match="min_share"):
        SelfConsistency(min_share=share)
