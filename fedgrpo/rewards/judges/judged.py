"""Self-evaluation: the frozen reference judges completions, one forward pass a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedgrpo.ground.chats import Chat
from fedgrpo.rewards.judges.templates import FACT, PRINCIPLE, REASONING, check_template, shown
from fedgrpo.rewards.registry import RewardFunction, register_reward
from fedgrpo.rewards.verifiable.grounding import check_facts

if TYPE_CHECKING:
    from fedgrpo.model.lora import Adapter
    from fedgrpo.rewards.judges.token_judge import Standing, TokenJudge

Texts = Sequence[str | Chat]


class _Judged:
    """A reward that asks a :class:`TokenJudge`, the trainer's own model unless another is given."""

    at: Standing = "base"
    """Whose probabilities the trainer's own model gives."""

    def __init__(self, judge: TokenJudge | None = None) -> None:
        self.judge = judge or _own_judge(self.at)

    def bind(self, adapter: Adapter) -> None:
        """Lend the trainer's model to a judge that has none; see :meth:`TokenJudge.bind`."""
        self.judge.bind(adapter)


class Principle(_Judged):
    """Reward p(yes) for following one constitutional principle (arXiv 2212.08073), in [0, 1].

    One principle is one reward, so that each is weighted and logged by itself or is an objective
    of its own; :func:`constitution` makes several.

    Parameters
    ----------
    principle:
        What a good completion does: "The response names its sources."
    judge:
        None judges with the trainer's base model.
    template:
        Question with the fields ``{prompt}``, ``{completion}`` and ``{principle}``.

    Raises
    ------
    RewardError
        If the template has other fields.
    """

    __name__ = "principle"

    def __init__(
        self, principle: str, judge: TokenJudge | None = None, template: str = PRINCIPLE
    ) -> None:
        super().__init__(judge)
        self.principle = principle
        self.template = check_template(template, ("prompt", "completion", "principle"))

    def __call__(self, prompts: Texts, completions: Texts, **_: object) -> list[float]:
        """Judge each completion."""
        questions = [
            shown(self.template, prompt, completion, principle=self.principle)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return list(self.judge.yes(questions).tolist())


def constitution(
    principles: Mapping[str, str], weight: float = 1.0, judge: TokenJudge | None = None
) -> list[tuple[str, RewardFunction, float]]:
    """Make one reward a principle, as :class:`RewardMixture` takes them.

    Parameters
    ----------
    principles:
        Text by the name under which its reward is reported.
    weight:
        Of all together.
    judge:
        Shared by all.
    """
    shared = judge or _own_judge("base")
    return [
        (name, Principle(text, shared), weight / len(principles))
        for name, text in principles.items()
    ]


@register_reward("reasoning_quality")
class ReasoningQuality(_Judged):
    """Reward the expected score of the reasoning, from 1..top brought to [0, 1].

    ``(s - 1) / (top - 1)`` with ``s = sum k p(k) / sum p(k)`` (G-Eval, arXiv 2303.16634).

    Parameters
    ----------
    judge:
        None judges with the trainer's base model.
    top:
        Best score, 2 to 9.
    template:
        Question with the fields ``{prompt}``, ``{completion}`` and ``{top}``.

    Raises
    ------
    RewardError
        If the template has other fields.
    """

    __name__ = "reasoning_quality"

    def __init__(
        self, judge: TokenJudge | None = None, top: int = 5, template: str = REASONING
    ) -> None:
        super().__init__(judge)
        self.top = top
        self.template = check_template(template, ("prompt", "completion", "top"))

    def __call__(self, prompts: Texts, completions: Texts, **_: object) -> list[float]:
        """Judge each completion."""
        questions = [
            shown(self.template, prompt, completion, top=str(self.top))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores = self.judge.score(questions, self.top)
        return list(((scores - 1) / (self.top - 1)).tolist())


@register_reward("judged_grounding")
class JudgedGrounding(_Judged):
    """Reward the mean over the row's ``facts`` of p(yes) for being supported by the fact.

    Notices negations and paraphrases that :func:`grounding` cannot, at one forward pass a fact. A
    row without facts is left to the other rewards.
    """

    __name__ = "judged_grounding"

    def __call__(
        self,
        prompts: Texts,
        completions: Texts,
        facts: Sequence[Sequence[str] | None],
        **_: object,
    ) -> list[float | None]:
        """Judge each completion."""
        checked = [check_facts(known) for known in facts]
        questions = [
            shown(FACT, prompt, completion, fact=fact)
            for prompt, completion, known in zip(prompts, completions, checked, strict=True)
            for fact in known
        ]
        answers = iter(self.judge.yes(questions).tolist())
        return [
            sum(next(answers) for _ in known) / len(known) if known else None for known in checked
        ]


@register_reward("self_certainty")
class SelfCertainty(_Judged):
    """Reward the mean over completion tokens of KL(uniform || p), in nats (arXiv 2505.19590).

    Measured under the policy as it is, as in Intuitor: a frozen judge is exploited sooner. It can
    be won by over-confidence all the same, so keep the learning rate small and a verifiable reward
    beside it.
    """

    __name__ = "self_certainty"
    at = "policy"

    def __call__(
        self, prompts: Texts, completion_ids: Sequence[Sequence[int]], **_: object
    ) -> list[float | None]:
        """Measure each completion, given as token ids."""
        from fedgrpo.model.encoding import encode_prompt

        base = self.judge.base
        encoded = [encode_prompt(base.tokenizer, prompt, base.chat) for prompt in prompts]
        return self.judge.certainty(encoded, completion_ids)


def _own_judge(at: Standing) -> TokenJudge:
    """A judge that the trainer lends its model; torch is imported when one is made."""
    from fedgrpo.rewards.judges.token_judge import TokenJudge

    return TokenJudge(at=at)
