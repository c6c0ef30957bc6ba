"""Call one reward function and check what it returns."""

from __future__ import annotations

import copy
import inspect
import math
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.rewards.calling.awaiting import awaited
from fedgrpo.rewards.calling.context import CONTEXT, Notes, TrainerState
from fedgrpo.rewards.registry import RewardFunction

Floats = NDArray[np.float64]

_OURS = ("fedgrpo.", "asyncio", "copy")
_NOT_APPLICABLE = math.nan
"""What ``None`` becomes inside arrays, as in TRL. A NaN of a function's own is refused."""


class MissingColumnError(RewardError):
    """No prompt has a column that a reward function cannot do without."""


@dataclass(frozen=True)
class Judge:
    """One reward function, and how to call it."""

    name: str
    """Under which it is reported."""
    accepts: Callable[[str], bool]
    """Tells whether its signature takes a keyword."""
    needs: tuple[str, ...]
    """Keywords that it cannot do without."""
    function: RewardFunction
    """What the user wrote."""
    kind: str = "reward"
    """What it is, for errors: ``reward`` or ``metric``."""

    @classmethod
    def of(cls, name: str, function: RewardFunction, kind: str = "reward") -> Self:
        """Read the function's signature.

        Raises
        ------
        RewardError
            If it cannot be read, or does not take keywords.
        """
        return cls(name, *_keywords(name, function, kind), function, kind)

    def __call__(
        self,
        arguments: Mapping[str, Sequence[Any]],
        count: int,
        context: Mapping[str, Any] | None = None,
    ) -> Floats:
        """Judge ``count`` completions.

        Parameters
        ----------
        arguments:
            Columns, ``count`` values each. The function gets copies, as deep as they are.
        context:
            What TRL passes besides: see :class:`fedgrpo.rewards.calling.context.Notes`.

        Returns
        -------
        ndarray of float64, shape (count,)
            NaN where the function returned None.

        Raises
        ------
        RewardError
            If a keyword is missing, the function raises, or its result is not one finite number or
            None for each completion.
        """
        returned = self.begun(arguments, context)
        if inspect.isawaitable(returned):
            (returned,) = awaited([returned])
        return self.checked(returned, count)

    def check_columns(self, names: Collection[str]) -> None:
        """Refuse prompts that lack a column which the function cannot do without."""
        for needed in self.needs:
            if needed not in names and needed not in CONTEXT:
                raise MissingColumnError(
                    f"{self.kind} {self.name!r} needs the column {needed!r}, which the prompts "
                    "have not",
                    cure=f"add it to the prompts, or give the argument {needed!r} a default",
                )

    def begun(
        self, arguments: Mapping[str, Sequence[Any]], context: Mapping[str, Any] | None = None
    ) -> object:
        """Call the function: what it returned, to be awaited if it is asynchronous, or what it
        raised.
        """
        self.check_columns(arguments)
        passed = {name: list(values) for name, values in arguments.items() if self.accepts(name)}
        try:
            if not _is_own(self.function):
                # Each by itself: completions of one prompt have one row's values in common.
                passed = {n: [copy.deepcopy(v) for v in values] for n, values in passed.items()}
            known = Notes().keywords(TrainerState()) if context is None else context
            wanted = self.needs if context is None else CONTEXT
            passed |= {n: known[n] for n in CONTEXT if n in wanted and self.accepts(n)}
            returned = self.function(**passed)
            # A generator runs the user's code only here.
            return list(returned) if _is_listlike(returned) else returned
        except BaseException as error:
            pass_on_interrupt(error)
            return error

    def checked(self, returned: object | BaseException, count: int) -> Floats:
        """Make numbers of what :meth:`begun` gave, or of what that came to."""
        if isinstance(returned, MissingColumnError):
            raise returned
        if isinstance(returned, BaseException):
            raise self._raised(returned) from returned
        if not _is_listlike(returned):
            kind = "None" if returned is None else type(returned).__name__
            raise RewardError(
                f"{self.kind} {self.name!r} returned {kind} instead of a list",
                cure="return one number, or None, for each completion",
            )
        items = list(cast(Iterable[object], returned))
        if len(items) != count:
            raise RewardError(
                f"{self.kind} {self.name!r} returned {len(items)} values for {count} completions",
                cure="return one number, or None, for each completion",
            )
        numbers = [self._number(item, index, count) for index, item in enumerate(items)]
        return np.array(numbers, dtype=np.float64)

    def _raised(self, error: BaseException) -> RewardError:
        if isinstance(error, RewardError) and _is_own(self.function):
            # Our own quote nothing.
            return RewardError(f"{self.kind} {self.name!r}: {error.problem}", cure=error.cure)
        return RewardError(
            f"{self.kind} {self.name!r} raised {type(error).__name__}{_place(error)}",
            cure="call it by hand on a few completions; the message is left out here because it "
            "may quote a prompt",
        )

    def _number(self, item: object, index: int, count: int) -> float:
        if item is None:
            return _NOT_APPLICABLE
        where = f"for completion {index + 1} of {count}"
        try:
            if isinstance(item, str | bytes):
                raise TypeError
            value = float(item)  # type: ignore[arg-type]  # also numpy's and torch's scalars
        except (TypeError, ValueError, RuntimeError):
            raise RewardError(
                f"{self.kind} {self.name!r} returned {type(item).__name__} {where}",
                cure="return a number, or None",
            ) from None
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise RewardError(
                f"{self.kind} {self.name!r} returned {value} {where}",
                cure=f"return a finite number; None where the {self.kind} does not apply",
            )
        return value


def verdicts(
    judges: Sequence[Judge],
    arguments: Mapping[str, Sequence[Any]],
    count: int,
    context: Mapping[str, Any] | None = None,
) -> list[Floats | RewardError]:
    """Judge the same completions by several functions, those that are asynchronous together."""
    begun = [_begun(judge, arguments, context) for judge in judges]
    return settled(judges, begun, [count] * len(judges))


def settled(
    judges: Sequence[Judge],
    begun: Sequence[object],
    counts: Sequence[int],
    timeout_s: float | None = None,
) -> list[Floats | RewardError]:
    """Await what is yet to come, all together, and check what came."""
    places = [place for place, value in enumerate(begun) if inspect.isawaitable(value)]
    waiting = [cast(Awaitable[object], begun[place]) for place in places]
    came = dict(zip(places, awaited(waiting, timeout_s), strict=True)) if waiting else {}
    values = [came.get(place, value) for place, value in enumerate(begun)]
    return [_checked(*each) for each in zip(judges, values, counts, strict=True)]


def _begun(
    judge: Judge, arguments: Mapping[str, Sequence[Any]], context: Mapping[str, Any] | None
) -> object:
    try:
        return judge.begun(arguments, context)
    except RewardError as error:
        return error


def _checked(judge: Judge, value: object, count: int) -> Floats | RewardError:
    try:
        return judge.checked(value, count)
    except RewardError as error:
        return error


def _keywords(
    name: str, function: RewardFunction, kind: str
) -> tuple[Callable[[str], bool], tuple[str, ...]]:
    """Which keywords a function takes, and which it cannot do without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise RewardError(
            f"{kind} {name!r} has no readable signature",
            cure=f"wrap it: def {kind}(prompts, completions, **columns)",
        ) from None
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise RewardError(
            f"{kind} {name!r} has arguments that cannot be passed by keyword",
            cure="remove the / from its signature",
        )
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needs = tuple(key for key, p in named.items() if p.default is p.empty)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda _: True, needs
    return lambda key: key in named, needs


def _is_listlike(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | set)


def _is_own(function: RewardFunction) -> bool:
    """Whether a reward is built in: it changes nothing of what it is given, and its own errors
    quote nothing.
    """
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}.".startswith("fedgrpo.")


def _place(error: BaseException) -> str:
    """File and line of a user's own code from which an error came, as far as it can be told."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    theirs = [f for f in frames if not str(f.f_globals.get("__name__")).startswith(_OURS)]
    if not theirs:
        return ""
    code = theirs[0].f_code
    return f" in {Path(code.co_filename).name}, line {_line(error, theirs[0])}"


def _line(error: BaseException, frame: FrameType) -> int:
    return next(line for each, line in traceback.walk_tb(error.__traceback__) if each is frame)
