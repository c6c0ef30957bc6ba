"""Length shaping: a soft edge before the length limit, and a cosine between short and long.

Both count tokens, which the trainer passes as ``completion_ids`` (TRL's name), end token included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.calling.judge import Judge
from fedgrpo.rewards.registry import RewardFunction
from fedgrpo.rewards.verifiable import overlong

if TYPE_CHECKING:
    from fedgrpo.model.lora import Adapter


def soft_overlong(max_length: int, buffer: int) -> RewardFunction:
    """Make DAPO's soft overlong punishment a reward, to be added to one for being right.

    :func:`fedgrpo.rewards.verifiable.overlong.soft_overlong` has the formula.

    Parameters
    ----------
    max_length:
        Length limit in tokens; ``grpo.max_completion_length``.
    buffer:
        Tokens before the limit from which on length costs, 1 to ``max_length``. DAPO takes a fifth
        of the limit.

    Raises
    ------
    RewardError
        If the buffer does not fit.
    """
    if not 0 < buffer <= max_length:
        raise RewardError(
            f"soft_overlong has buffer {buffer} for max_length {max_length}",
            cure="choose 0 < buffer <= max_length, for example a fifth of it",
        )

    def soft_overlong_reward(completion_ids: Sequence[Sequence[int]], **_: object) -> list[float]:
        lengths = [len(ids) for ids in completion_ids]
        punishment: list[float] = overlong.soft_overlong(lengths, max_length, buffer).tolist()
        return punishment

    return soft_overlong_reward


@dataclass(frozen=True)
class CosineLength:
    """Right answers earn less the longer they are, wrong ones lose less (arXiv 2502.03373).

    With x = L / max_length and the ends a (at L = 0) and b (at the limit), the reward is
    ``b + (a - b) (1 + cos(pi x)) / 2``. Beyond the limit it is ``exceeded``. A row to which
    ``correct`` does not apply is left to the other rewards.

    Parameters
    ----------
    correct:
        Reward that decides what is right: :func:`exact_match`, for example.
    max_length:
        Length limit in tokens.
    threshold:
        Least value of ``correct`` that counts as right.
    right, wrong:
        Rewards (a, b) of an empty and of a longest completion.
    exceeded:
        Reward beyond the limit.

    Raises
    ------
    RewardError
        If ``max_length`` is not positive, or ``correct`` has no readable signature.
    """

    correct: RewardFunction
    max_length: int
    _: KW_ONLY
    threshold: float = 1.0
    right: tuple[float, float] = (1.0, 0.5)
    wrong: tuple[float, float] = (-1.0, -0.5)
    exceeded: float = -1.0

    __name__ = "cosine_length"

    def __post_init__(self) -> None:
        if self.max_length <= 0:
            raise RewardError(
                f"cosine_length has max_length {self.max_length}", cure="give a number of tokens"
            )
        Judge.of("cosine_length's correct", self.correct)

    def bind(self, adapter: Adapter) -> None:
        """Pass the trainer's adapter on, if ``correct`` wants it."""
        if hasattr(self.correct, "bind"):
            self.correct.bind(adapter)

    def warm_up(self) -> None:
        """Let ``correct`` load what it needs, before any prompt is there."""
        getattr(self.correct, "warm_up", lambda: None)()

    def __call__(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        completion_ids: Sequence[Sequence[int]],
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """Reward each completion; ``correct`` gets the columns that it asks for."""
        arguments = {
            "prompts": prompts,
            "completions": completions,
            "completion_ids": completion_ids,
            **columns,
        }
        judge = Judge.of("cosine_length's correct", self.correct)
        verdicts = judge(arguments, len(completions)).tolist()
        return [
            None if math.isnan(verdict) else self._shaped(verdict, len(ids))
            for verdict, ids in zip(verdicts, completion_ids, strict=True)
        ]

    def _shaped(self, verdict: float, length: int) -> float:
        if length > self.max_length:
            return self.exceeded
        empty, longest = self.right if verdict >= self.threshold else self.wrong
        return longest + (empty - longest) * (1 + math.cos(math.pi * length / self.max_length)) / 2
