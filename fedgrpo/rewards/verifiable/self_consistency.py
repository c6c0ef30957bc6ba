"""Self-consistency: the group's majority answer is taken for the right one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.calling.groups import same_prompt_runs
from fedgrpo.rewards.registry import register_reward
from fedgrpo.rewards.verifiable.verifiers import completion_text, last_number

Extract = Callable[[str], str | None]
"""Takes the answer out of a completion; None if there is none."""

_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")


def final_answer(text: str) -> str | None:
    r"""Return what the last ``\boxed{}`` holds, or else the last number, or None."""
    boxed = [content.strip() for content in _BOXED.findall(text)]
    if boxed and boxed[-1]:
        return str(boxed[-1])
    number = last_number(text)
    # Adding 0 turns -0.0 into 0.0.
    return None if number is None else repr(number + 0.0)


def whole_text(text: str) -> str | None:
    """Return the completion without surrounding white space, or None if nothing is left."""
    return text.strip() or None


@register_reward("self_consistency")
class SelfConsistency:
    """Reward 1 for the answer that most of the group gave, 0 for another (TTRL, arXiv 2504.16084).

    Needs no answers and no second model, but trusts the model: what most samples get wrong is
    learnt wrong. The whole group abstains (None, no signal) unless one answer has at least
    ``min_share`` of all its completions and no other has as many. Completions without an answer
    count for the share and never win. A group of one has no majority.

    Parameters
    ----------
    extract:
        Takes the answer out of a text.
    min_share:
        In (0, 1].

    Raises
    ------
    RewardError
        If ``min_share`` is out of range.
    """

    __name__ = "self_consistency"
    abstains = True

    def __init__(self, extract: Extract = final_answer, min_share: float = 0.5) -> None:
        if not 0 < min_share <= 1:
            raise RewardError(
                f"self_consistency has min_share {min_share}", cure="choose 0 < min_share <= 1"
            )
        self.extract = extract
        self.min_share = min_share

    def __call__(
        self, prompts: Sequence[str | Chat], completions: Sequence[str | Chat], **_: object
    ) -> list[float | None]:
        """Reward completions; those of one prompt stand side by side."""
        answers = [self.extract(completion_text(completion)) for completion in completions]
        rewards: list[float | None] = []
        for run in same_prompt_runs(prompts):
            winner = self._winner(answers[run])
            rewards.extend(
                None if winner is None else float(answer == winner) for answer in answers[run]
            )
        return rewards

    def _winner(self, answers: Sequence[str | None]) -> str | None:
        if len(answers) < 2:
            return None
        votes = Counter(answer for answer in answers if answer is not None).most_common(2)
        if not votes or votes[0][1] < self.min_share * len(answers):
            return None
        tied = len(votes) == 2 and votes[0][1] == votes[1][1]
        return None if tied else votes[0][0]


@register_reward("self_consistency_text")
class TextSelfConsistency(SelfConsistency):
    """:class:`SelfConsistency` over whole completions, for answers that are neither boxed nor
    numbers.
    """

    __name__ = "self_consistency_text"

    def __init__(self, min_share: float = 0.5) -> None:
        super().__init__(whole_text, min_share)
