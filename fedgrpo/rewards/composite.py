"""Several weighted reward functions as one, with everything that they return checked."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError, all_at_once
from fedgrpo.rewards.calling.context import CONTEXT, Notes, TrainerState
from fedgrpo.rewards.calling.groups import same_prompt_runs
from fedgrpo.rewards.calling.judge import Judge, MissingColumnError, verdicts
from fedgrpo.rewards.loading import load_metrics, load_reward
from fedgrpo.rewards.registry import OwnMetric, RewardFunction

if TYPE_CHECKING:
    from fedgrpo.model.lora import Adapter
    from fedgrpo.settings import RewardSettings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RewardResult:
    """Rewards of n completions."""

    total: Floats
    """Weighted sum over the functions that apply, shape (n,), finite; 0 where none does."""
    per_function: Mapping[str, Floats]
    """Unweighted rewards by function, shape (n,); NaN where the function does not apply."""
    failures: Mapping[int, RewardError] = field(default_factory=dict)
    """Why groups could not be judged, by their number: they count nothing."""
    notes: Notes = field(default_factory=Notes)
    """What the functions logged."""
    measured: Mapping[str, Floats] = field(default_factory=dict)
    """Metrics of users' own by the names of their figures, shape (n,), within their ranges; NaN
    where one failed or does not apply."""
    unmeasured: tuple[RewardError, ...] = ()
    """Why a metric told nothing of a group, as often as that was: it costs its figure alone."""

    def objectives(self) -> Floats:
        """Rewards of each function as one objective, shape (n, m), in the order of the mixture.

        What advantages take that normalise every objective by itself (GDPO, arXiv 2601.05242);
        weigh them by :attr:`RewardMixture.weights`. NaN where a function does not apply.
        """
        return np.stack(list(self.per_function.values()), axis=1)

    def counted(self) -> NDArray[np.bool_]:
        """Which completions any function applies to, shape (n,)."""
        if not self.per_function:
            return np.ones(len(self.total), dtype=bool)
        return np.asarray(~np.isnan(self.objectives()).all(axis=1))


@dataclass(frozen=True)
class Batch:
    """Completions to judge.

    Attributes
    ----------
    arguments:
        ``prompts``, ``completions`` and columns, as many values each as there are completions.
    groups:
        Which completions answer one prompt; together they cover all.
    state, notes:
        What functions may ask of the training, and log.
    """

    arguments: Mapping[str, Sequence[Any]]
    groups: Sequence[slice]
    state: TrainerState = field(default_factory=TrainerState)
    notes: Notes | None = None

    @property
    def count(self) -> int:
        """Number of completions."""
        return self.groups[-1].stop if self.groups else 0

    def part(self, number: int) -> Batch:
        """One group, which logs nothing: its batch has been called for once before."""
        span = self.groups[number]
        arguments = {name: values[span] for name, values in self.arguments.items()}
        notes = None if self.notes is None else Notes()
        return Batch(arguments, [slice(0, span.stop - span.start)], self.state, notes)

    def context(self) -> Mapping[str, Any] | None:
        """What TRL passes besides the columns; None where nothing is told."""
        return None if self.notes is None else self.notes.keywords(self.state)


Column = list[Floats | RewardError]
"""What one function says of each group."""


@dataclass(frozen=True)
class JudgedApart:
    """Stands for a function that judges in another process."""

    abstains: bool

    def __call__(self, **_: object) -> NoReturn:
        """Never called."""
        raise AssertionError("another process judges by it")


def measured_apart(spans: Mapping[str, tuple[float, float]]) -> dict[str, OwnMetric]:
    """Stand for metrics that another process measures, by the names of their figures."""
    return {name: OwnMetric(JudgedApart(False), *span) for name, span in spans.items()}


class RewardMixture:
    """Weighted sum of reward functions.

    Parameters
    ----------
    functions:
        Name, function and weight of each. Names are those under which rewards are reported.
    metrics:
        Metrics of users' own, by the names of their figures: measured beside, without any weight.

    Raises
    ------
    RewardError
        If there is no function, a name occurs twice, a weight is not finite, or a signature cannot
        be read.
    """

    def __init__(
        self,
        functions: Sequence[tuple[str, RewardFunction, float]],
        metrics: Mapping[str, OwnMetric] = MappingProxyType({}),
    ) -> None:
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
        self._measure(metrics)

    def _measure(self, metrics: Mapping[str, OwnMetric]) -> None:
        self._metrics = dict(metrics)
        self._every = (
            *self._judges,
            *(Judge.of(name, metric.function, "metric") for name, metric in metrics.items()),
        )

    def measuring(self, metrics: Mapping[str, OwnMetric]) -> Self:
        """The same mixture with these metrics of users' own, in this process."""
        made = copy.copy(self)
        made._measure(metrics)
        return made

    @property
    def metrics(self) -> Mapping[str, OwnMetric]:
        """Metrics of users' own, by the names of their figures."""
        return dict(self._metrics)

    @property
    def spans(self) -> Mapping[str, tuple[float, float]]:
        """Least and largest value of each metric of users' own."""
        return {name: metric.span for name, metric in self._metrics.items()}

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

    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """Keywords that each function cannot do without, by its name."""
        return {judge.name: judge.needs for judge in self._every}

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
        """Make a mixture of what Python code has at hand: functions all weigh 1, and get different
        names.
        """
        if isinstance(reward, RewardMixture):
            return reward
        several = [reward] if callable(reward) else list(reward)
        names = different([_name(function, i) for i, function in enumerate(several)])
        return cls([(name, f, 1.0) for name, f in zip(names, several, strict=True)])

    @classmethod
    def from_settings(cls, settings: RewardSettings, metrics: Sequence[str] = ()) -> Self:
        """Load the functions that the settings name into this process, all weighing 1 if no weights
        are given, and metrics of modules and files.

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
            ],
            load_metrics(metrics),
        )

    def __call__(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
    ) -> RewardResult:
        """Judge n completions.

        Each function is called with keywords, and only with those that its signature has:
        ``prompts``, ``completions`` and the columns. It gets copies of its own, so that changing
        them disturbs nobody.

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
        _check_lengths(arguments)
        batch = Batch(arguments, [slice(0, len(completions))])
        said = self._columns(batch)
        found = self._result(self._matrix(said, 0), prompts)
        return self._with_metrics(found, said, batch)

    def judge(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
        group_size: int,
        state: TrainerState = TrainerState(),  # noqa: B008 - frozen
    ) -> RewardResult:
        """Judge n completions, ``group_size`` side by side for each prompt; a group that cannot be
        judged counts nothing and costs the others nothing.

        Functions may also ask for TRL's ``trainer_state``, ``log_extra`` and ``log_metric``.

        Raises
        ------
        RewardError
            If lengths differ, or no prompt has a column that a function needs.
        """
        arguments = {"prompts": prompts, "completions": completions, **columns}
        _check_lengths(arguments)
        starts = range(0, len(completions), group_size)
        batch = Batch(arguments, [slice(i, i + group_size) for i in starts], state, Notes())
        columns_found = self._columns(batch)
        parts, failures = [], {}
        for number, group in enumerate(batch.groups):
            try:
                parts.append(self._result(self._matrix(columns_found, number), prompts[group]))
            except MissingColumnError:
                raise
            except RewardError as error:
                failures[number] = error
                parts.append(self._nothing(group.stop - group.start))
        joined = join_results(parts)
        told = replace(joined, failures=failures, notes=batch.notes or Notes())
        return self._with_metrics(told, columns_found, batch)

    def _result(self, matrix: Floats, prompts: Sequence[str | Chat]) -> RewardResult:
        silent = np.asarray(np.isnan(matrix).all(axis=0))
        if self._abstaining:
            silent = _unexcused(silent, prompts)
        if silent.any():
            raise RewardError(
                f"no reward applies to completion {silent.argmax() + 1} of {len(prompts)}",
                cure="let at least one function return a number for every row",
            )
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.nansum(self._weights[:, None] * matrix, axis=0)
        if not np.isfinite(total).all():
            raise RewardError("the weighted rewards overflow", cure="return smaller numbers")
        return RewardResult(total, dict(zip(self.names, matrix, strict=True)))

    def _nothing(self, count: int) -> RewardResult:
        unknown = {name: np.full(count, np.nan) for name in self.names}
        return RewardResult(np.zeros(count), unknown)

    def _matrix(self, columns: Sequence[Column], group: int) -> Floats:
        """Unweighted rewards of a group, shape (m, n); NaN where a function does not apply."""
        return _stacked([column[group] for column in columns[: len(self._judges)]])

    def _with_metrics(
        self, found: RewardResult, columns: Sequence[Column], batch: Batch
    ) -> RewardResult:
        """Add what metrics say, held to their ranges whatever they return."""
        measured, unmeasured = {}, list[RewardError]()
        theirs = zip(self._metrics.items(), columns[len(self._judges) :], strict=True)
        for (name, metric), column in theirs:
            lacking = {n: each for n, each in enumerate(column) if isinstance(each, RewardError)}
            unmeasured += lacking.values()
            values = [
                np.full(group.stop - group.start, np.nan) if number in lacking else column[number]
                for number, group in enumerate(batch.groups)
            ]
            measured[name] = np.clip(np.concatenate([*values, np.zeros(0)]), *metric.span)
        return replace(found, measured=measured, unmeasured=tuple(unmeasured))

    def _columns(self, batch: Batch) -> list[Column]:
        """What each function says of each group, in their order; then each metric."""
        return judged_here(self._every, batch)


def check_columns(mixture: RewardMixture, columns: Collection[str]) -> None:
    """Refuse prompts that have not the columns which rewards cannot do without.

    Parameters
    ----------
    mixture:
        The rewards.
    columns:
        Names of those that any prompt has.

    Raises
    ------
    MissingColumnError, FaultsError
        Names the reward, the column, and the columns that there are.
    """
    known = {"prompts", "completions", "completion_ids", *CONTEXT, *columns}
    lacking = [(name, n) for name, all_ in mixture.needs().items() for n in all_ if n not in known]
    kinds = dict.fromkeys(mixture.metrics, "metric")
    all_at_once(
        partial(_lack, f"{kinds.get(name, 'reward')} {name!r}", needed, columns)
        for name, needed in lacking
    )


def _lack(what: str, needed: str, columns: Collection[str]) -> NoReturn:
    raise MissingColumnError(
        f"{what} needs the column {needed!r}, which the prompts have not; beside prompt "
        f"they have {', '.join(sorted(columns)) or 'none'}",
        cure=f'add it, or name the column that it is, data.columns = {{{needed} = "..."}}, or give '
        "the argument a default",
    )


def judged_here(judges: Sequence[Judge], batch: Batch) -> list[Column]:
    """Judge in this process: all groups in one call, as TRL does, and one by one where that fails,
    so that one of them costs itself alone.
    """
    whole = verdicts(judges, batch.arguments, batch.count, batch.context())
    found: list[Column] = [_cut(verdict, batch) for verdict in whole]
    failed = [place for place, verdict in enumerate(whole) if isinstance(verdict, RewardError)]
    if len(batch.groups) == 1 or not failed:
        return found
    again = [judges[place] for place in failed]
    for number in range(len(batch.groups)):
        part = batch.part(number)
        single = verdicts(again, part.arguments, part.count, part.context())
        for place, verdict in zip(failed, single, strict=True):
            found[place][number] = verdict
    return found


def _cut(verdict: Floats | RewardError, batch: Batch) -> Column:
    if isinstance(verdict, RewardError):
        return [verdict] * len(batch.groups)
    return [verdict[group] for group in batch.groups]


def _stacked(column: Sequence[Floats | RewardError]) -> Floats:
    for verdict in column:
        if isinstance(verdict, RewardError):
            raise verdict
    return np.stack([verdict for verdict in column if not isinstance(verdict, RewardError)])


def _check_lengths(arguments: Mapping[str, Sequence[Any]]) -> None:
    count = len(arguments["completions"])
    for name, values in arguments.items():
        if len(values) != count:
            raise RewardError(
                f"{name} has {len(values)} values for {count} completions",
                cure="repeat each prompt and its columns once for each of its completions",
            )


def join_results(parts: Sequence[RewardResult]) -> RewardResult:
    """Put the rewards of several calls behind each other."""
    return RewardResult(
        np.concatenate([part.total for part in parts]),
        {
            name: np.concatenate([part.per_function[name] for part in parts])
            for name in parts[0].per_function
        },
        measured={
            name: np.concatenate([part.measured[name] for part in parts])
            for name in parts[0].measured
        },
    )


def different(names: Sequence[str]) -> list[str]:
    """Number names that occur again: ``reward``, ``reward_2``."""
    taken: list[str] = []
    for name in names:
        tries = chain([name], (f"{name}_{number}" for number in count(2)))
        taken.append(next(each for each in tries if each not in taken))
    return taken


RewardArgument = RewardMixture | Callable[..., Any] | Sequence[Callable[..., Any]]
"""One function, several, or a weighted mixture."""


def _name(function: Callable[..., Any], place: int) -> str:
    name = getattr(function, "__name__", f"reward_{place}")
    return "reward" if name == "<lambda>" else str(name)


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
