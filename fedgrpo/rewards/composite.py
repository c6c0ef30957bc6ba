"""Several weighted reward functions as one, with everything that they return checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.groups import same_prompt_runs
from fedgrpo.rewards.judge import Judge
from fedgrpo.rewards.loading import load_reward
from fedgrpo.rewards.registry import RewardFunction

if TYPE_CHECKING:
    from fedgrpo.model.lora import Adapter
    from fedgrpo.settings import RewardSettings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RewardResult:
    """Rewards of n completions."""

    total: Floats
    """Weighted sum over the functions that apply, shape (n,), finite."""
    per_function: Mapping[str, Floats]
    """Unweighted rewards by function, shape (n,); NaN where the function does not apply."""

    def objectives(self) -> Floats:
        """Rewards of each function as one objective, shape (n, m), in the order of the mixture.

        What advantages take that normalise every objective by itself (GDPO, arXiv 2601.05242);
        weigh them by :attr:`RewardMixture.weights`. NaN where a function does not apply.
        """
        return np.stack(list(self.per_function.values()), axis=1)


class RewardMixture:
    """Weighted sum of reward functions.

    Parameters
    ----------
    functions:
        Name, function and weight of each. Names are those under which rewards are reported.

    Raises
    ------
    RewardError
        If there is no function, a name occurs twice, a weight is not finite, or a signature cannot
        be read.
    """

    def __init__(self, functions: Sequence[tuple[str, RewardFunction, float]]) -> None:
        names = [name for name, _, _ in functions]
        if not names:
            raise RewardError("there is no reward function", cure="name at least one")
        for name, _, weight in functions:
            if names.count(name) > 1:
                raise RewardError(f"reward {name!r} is named twice", cure="name it once, weighted")
            if not math.isfinite(weight):
                raise RewardError(f"reward {name!r} has weight {weight}", cure="give a number")
        self._judges = tuple(Judge.of(name, f) for name, f, _ in functions)
        self._weights = np.array([weight for _, _, weight in functions], dtype=np.float64)
        self._abstaining = any(getattr(f, "abstains", False) for _, f, _ in functions)

    @property
    def names(self) -> list[str]:
        """Names under which rewards are reported, in order."""
        return [judge.name for judge in self._judges]

    @property
    def weights(self) -> Floats:
        """Copy of the weight of each function, shape (m,)."""
        return self._weights.copy()

    def bind(self, adapter: Adapter) -> None:
        """Lend the trainer's adapter, as the round begins, to the functions that judge with it:
        those that have a method ``bind``.
        """
        for judge in self._judges:
            if hasattr(judge.function, "bind"):
                judge.function.bind(adapter)

    @property
    def functions(self) -> list[tuple[str, RewardFunction, float]]:
        """Name, function and weight of each: what another mixture can be made of."""
        weights = self._weights.tolist()
        return [
            (judge.name, judge.function, weight)
            for judge, weight in zip(self._judges, weights, strict=True)
        ]

    @classmethod
    def of(cls, reward: RewardArgument) -> RewardMixture:
        """Make a mixture of what Python code has at hand: functions all weigh 1."""
        if isinstance(reward, RewardMixture):
            return reward
        several = [reward] if callable(reward) else list(reward)
        return cls([(getattr(f, "__name__", f"reward_{i}"), f, 1.0) for i, f in enumerate(several)])

    @classmethod
    def from_settings(cls, settings: RewardSettings) -> Self:
        """Load the functions that the settings name, all weighing 1 if no weights are given.

        Raises
        ------
        RewardError
            If one cannot be loaded.
        """
        weights = settings.weights or (1.0,) * len(settings.functions)
        return cls(
            [
                (name, load_reward(name), weight)
                for name, weight in zip(settings.functions, weights, strict=True)
            ]
        )

    def __call__(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
    ) -> RewardResult:
        """Judge n completions.

        Each function is called with keywords, and only with those that its signature has:
        ``prompts``, ``completions`` and the columns. It gets lists of its own, so that sorting them
        disturbs nobody.

        Parameters
        ----------
        prompts, completions:
            n each; a group's prompt is repeated.
        columns:
            Further columns of the prompts, n values each.

        Raises
        ------
        RewardError
            If a function raises, needs a column that there is not, or returns something else than n
            finite numbers or None; if no function applies to a completion, unless one may abstain
            and its whole group is without reward; or if lengths differ.
            Names the function and positions, never a text. What a function raised is chained, for
            whoever may read this process's traceback.
        """
        arguments = {"prompts": prompts, "completions": completions, **columns}
        for name, values in arguments.items():
            if len(values) != len(completions):
                raise RewardError(
                    f"{name} has {len(values)} values for {len(completions)} completions",
                    cure="repeat each prompt and its columns once for each of its completions",
                )
        matrix = self._matrix(arguments, len(completions))
        silent = np.asarray(np.isnan(matrix).all(axis=0))
        if self._abstaining:
            silent = _unexcused(silent, prompts)
        if silent.any():
            raise RewardError(
                f"no reward applies to completion {silent.argmax() + 1} of {len(completions)}",
                cure="let at least one function return a number for every row",
            )
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.nansum(self._weights[:, None] * matrix, axis=0)
        if not np.isfinite(total).all():
            raise RewardError("the weighted rewards overflow", cure="return smaller numbers")
        return RewardResult(
            total=total,
            per_function={
                judge.name: rewards for judge, rewards in zip(self._judges, matrix, strict=True)
            },
        )

    def _matrix(self, arguments: Mapping[str, Sequence[Any]], count: int) -> Floats:
        """Unweighted rewards, shape (m, n); NaN where a function does not apply."""
        return np.stack([judge(arguments, count) for judge in self._judges])


RewardArgument = RewardMixture | Callable[..., Any] | Sequence[Callable[..., Any]]
"""One function, several, or a weighted mixture."""


def _unexcused(silent: NDArray[np.bool_], prompts: Sequence[str | Chat]) -> NDArray[np.bool_]:
    """Clear the marks of groups that are silent as a whole: no signal, and no mistake either.

    A function with the attribute ``abstains`` may leave a whole group without a reward, as a vote
    without a majority does. Their total is 0.
    """
    left = silent.copy()
    for run in same_prompt_runs(prompts):
        if silent[run].all():
            left[run] = False
    return left
