"""Rewards under prompt-level privacy: what one prompt's group is given depends on that group alone.

A function that keeps something between calls (a list of what was said before, a running mean, a
cache, a file) would let one prompt move another's gradient, which the proof rules out. So whatever
does not run a model judges in a process that remembers nothing
(:mod:`fedgrpo.rewards.sandboxed.worker`). Built-in rewards that run a model keep nothing, and judge
here, one group at a time; so do those that compare plainly, for which a process of their own would
cost fifty times what they do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.parts import brings_code
from fedgrpo.rewards.calling.context import TrainerState
from fedgrpo.rewards.calling.groups import same_prompt_runs
from fedgrpo.rewards.calling.judge import verdicts
from fedgrpo.rewards.composite import (
    Batch,
    Column,
    JudgedApart,
    RewardMixture,
    RewardResult,
    measured_apart,
)
from fedgrpo.rewards.judges.judged import (
    JudgedGrounding,
    Principle,
    ReasoningQuality,
    SelfCertainty,
)
from fedgrpo.rewards.judges.limits import FACT_BYTES, MOST_FACTS, check_fact_limits
from fedgrpo.rewards.loading import load_metrics, load_reward
from fedgrpo.rewards.registry import OwnMetric, RewardFunction
from fedgrpo.rewards.sandboxed.client import RewardWorker
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits, sandbox_available
from fedgrpo.rewards.verifiable.length import CosineLength
from fedgrpo.rewards.verifiable.repetition import repetition
from fedgrpo.rewards.verifiable.verifiers import exact_match

if TYPE_CHECKING:
    from fedgrpo.rewards.judges.reward_model import RewardModel
    from fedgrpo.settings import RewardSettings

_JUDGED = (Principle, ReasoningQuality, JudgedGrounding, SelfCertainty)
_PLAIN: tuple[RewardFunction, ...] = (exact_match, repetition)
"""Built-in functions without any state, whose time is linear in a text's length: they search by no
regular expression, parse nothing and call no library.
"""
_AnyJudged = Principle | ReasoningQuality | JudgedGrounding | SelfCertainty

__all__ = ["IsolatedMixture", "WorkerLimits", "isolated_mixture", "runs_model"]


class IsolatedMixture(RewardMixture):
    """A mixture that judges one prompt's group a call, each as if it were the only one.

    Made by :func:`isolated_mixture`.

    Parameters
    ----------
    functions:
        As for :class:`RewardMixture`.
    worker:
        Judges by those of its names that are among the functions; None if there is none.
    metrics:
        As for :class:`RewardMixture`; those that judge apart are the worker's, in its order.
    """

    def __init__(
        self,
        functions: Sequence[tuple[str, RewardFunction, float]],
        worker: RewardWorker | None,
        metrics: Mapping[str, OwnMetric] = MappingProxyType({}),
    ) -> None:
        super().__init__(functions, metrics)
        self._worker = worker
        self._apart = worker.names if worker else ()

    def __call__(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
    ) -> RewardResult:
        """See :meth:`RewardMixture.__call__`.

        Raises
        ------
        RewardError
            As there; also if a function crashed or took too much time or memory, or if there is
            more than one prompt.
        """
        if len(same_prompt_runs(prompts)) > 1:
            raise RewardError(
                "rewards that must not see one prompt beside another were given several",
                cure="judge each prompt's completions in a call of their own",
            )
        return super().__call__(prompts, completions, columns)

    def judge(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
        group_size: int,
        state: TrainerState = TrainerState(),  # noqa: B008 - frozen
    ) -> RewardResult:
        """As a call: nothing is told of the training, nothing logged, and what fails is raised."""
        return self(prompts, completions, columns)

    def _columns(self, batch: Batch) -> list[Column]:
        arguments, count = batch.arguments, batch.count
        if any(isinstance(_innermost(j.function), JudgedGrounding) for j in self._judges):
            check_fact_limits(arguments.get("facts", ()))
        apart = iter(self._worker.judge(arguments, count) if self._worker else ())
        # Rewards first, as in the worker; what one of them raises here is raised.
        found: list[Column] = [
            [next(apart) if judge.name in self._apart else judge(arguments, count)]
            for judge in self._judges
        ]
        for judge in self._every[len(self._judges) :]:
            here = not isinstance(judge.function, JudgedApart)
            found.append([verdicts([judge], arguments, count)[0] if here else next(apart)])
        return found

    def model_seconds(self, group: int, tokens: int) -> float:
        """Measured time that the functions which run a model take for one prompt's group at the
        most: all its questions are ``tokens`` long, and all rows have all the facts they may.

        The mixture must be bound.
        """
        return group * sum(_measured(judge.function, tokens) for judge in self._judges)

    @property
    def restart_s(self) -> float:
        """Most seconds to make the worker anew once it hung; 0 without one."""
        return self._worker.restart_s if self._worker else 0.0

    def close(self) -> None:
        """End the worker process, if there is one; another call would start it again."""
        if self._worker is not None:
            self._worker.close()


def isolated_mixture(
    reward: RewardSettings,
    metrics: Sequence[str] = (),
    *,
    stateless: Collection[str] = (),
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008 - frozen
    most_tokens: int | None = None,
) -> IsolatedMixture:
    """Load the functions that the settings name, each where it may judge.

    A module or a file that the site does not vouch for is never imported in this process.

    Parameters
    ----------
    reward:
        The run's.
    metrics:
        Of modules and files, measured beside, where rewards of users' own judge.
    stateless:
        Names that the site itself vouches for: they keep nothing between calls and judge in this
        process.
    limits:
        Of one prompt's group, over all functions that judge apart.
    most_tokens:
        Of a question to a model; see :func:`fedgrpo.rewards.judges.limits.question_tokens`.

    Raises
    ------
    RewardError
        If one cannot be loaded; if one that the site does not vouch for wants the trainer's model;
        or if it must judge apart and this machine's kernel cannot forbid it to write.
    """
    weights = reward.weights or (1.0,) * len(reward.functions)
    here = {
        name: function
        for name in reward.functions
        if name in stateless or not brings_code(name)
        for function in (load_reward(name),)
        if name in stateless or function in _PLAIN or runs_model(name, function)
    }
    apart = tuple(name for name in reward.functions if name not in here)
    measured = tuple(name for name in metrics if name not in stateless)
    if (apart or measured) and not sandbox_available():
        what = f"reward {apart[0]!r}" if apart else f"metric {measured[0]!r}"
        raise RewardError(
            f"{what} must judge in a process that can leave nothing behind, which "
            "this machine's kernel cannot promise",
            cure="use Linux on x86-64 or aarch64; or name it in the site's policy, if it keeps "
            "nothing between calls: stateless_rewards",
        )
    for function in map(_innermost, here.values()):
        if _is_judged(function):
            cast(_AnyJudged, function).judge.most_tokens = most_tokens
    surroundings = os.getcwd(), tuple(sys.path)
    worker = _worker(apart, measured, limits, *surroundings) if apart or measured else None
    stand_ins = {name: JudgedApart(worker.abstains[name]) for name in apart} if worker else {}
    judges: Mapping[str, RewardFunction] = {**here, **stand_ins}
    functions = [(n, judges[n], w) for n, w in zip(reward.functions, weights, strict=True)]
    return IsolatedMixture(functions, worker, _metrics(metrics, worker))


def _metrics(names: Sequence[str], worker: RewardWorker | None) -> Mapping[str, OwnMetric]:
    """Those of the worker stand for themselves; the others are loaded here."""
    from fedgrpo.settings import figure_name

    spans = worker.spans if worker else {}
    apart = measured_apart({figure_name(name): span for name, span in spans.items()})
    here = load_metrics(name for name in names if name not in spans)
    return {name: (apart | here)[name] for name in map(figure_name, names)}


def runs_model(name: str, function: RewardFunction) -> bool:
    """Tell whether a reward is one of the built-in kinds that run a model, and so keep nothing.

    Exactly these classes: one derived from them could keep something.

    Raises
    ------
    RewardError
        If it is another one that wants to be lent the trainer's model, which a worker has not.
    """
    function = _innermost(function)
    if _is_judged(function) or _is_reward_model(function):
        return True
    if hasattr(function, "bind"):
        raise RewardError(
            f"reward {name!r} wants the trainer's model and is not built in",
            cure="build it from Principle or another built-in judge; or name it in the site's "
            "policy, if it keeps nothing between calls: stateless_rewards",
        )
    return False


def _innermost(function: RewardFunction) -> RewardFunction:
    """What judges inside of a reward that only looks at lengths."""
    return _innermost(function.correct) if type(function) is CosineLength else function


def _measured(function: RewardFunction, tokens: int) -> float:
    """Seconds for one completion at its limits; 0 for a function that runs no model."""
    function = _innermost(function)
    if _is_reward_model(function):
        # Truncated at its own limit.
        text, started = "a 1 " * cast("RewardModel", function).max_length, time.monotonic()
        function([text], [text])
        return time.monotonic() - started
    if not _is_judged(function):
        return 0.0
    facts = MOST_FACTS if isinstance(function, JudgedGrounding) else 1
    return cast(_AnyJudged, function).judge.seconds(tokens, facts, FACT_BYTES)


def _is_judged(function: RewardFunction) -> bool:
    if not isinstance(function, _JUDGED) or type(function) not in _JUDGED:
        return False
    from fedgrpo.rewards.judges.token_judge import TokenJudge

    return type(function.judge) is TokenJudge


def _is_reward_model(function: RewardFunction) -> bool:
    """Whoever made one has imported its module."""
    module = sys.modules.get("fedgrpo.rewards.judges.reward_model")
    return module is not None and type(function) is module.RewardModel


@lru_cache(maxsize=1)
def _worker(
    names: tuple[str, ...],
    metrics: tuple[str, ...],
    limits: WorkerLimits,
    folder: str,
    path: tuple[str, ...],
) -> RewardWorker:
    """One worker a process: where names lead depends on the folder and the module path too."""
    return RewardWorker(names, limits, metrics)
