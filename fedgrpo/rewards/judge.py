"""Call one reward function and check what it returns."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.rewards.registry import RewardFunction

Floats = NDArray[np.float64]

_NOT_APPLICABLE = math.nan
"""What ``None`` becomes inside arrays, as in TRL. A NaN of a function's own is refused."""


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

    @classmethod
    def of(cls, name: str, function: RewardFunction) -> Self:
        """Read the function's signature.

        Raises
        ------
        RewardError
            If it cannot be read, or does not take keywords.
        """
        return cls(name, *_keywords(name, function), function)

    def __call__(self, arguments: Mapping[str, Sequence[Any]], count: int) -> Floats:
        """Judge ``count`` completions.

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
        returned = self._returned(arguments)
        if len(returned) != count:
            raise RewardError(
                f"reward {self.name!r} returned {len(returned)} values for {count} completions",
                cure="return one number, or None, for each completion",
            )
        numbers = [self._number(item, index, count) for index, item in enumerate(returned)]
        return np.array(numbers, dtype=np.float64)

    def _returned(self, arguments: Mapping[str, Sequence[Any]]) -> list[object]:
        for needed in self.needs:
            if needed not in arguments:
                raise RewardError(
                    f"reward {self.name!r} needs the column {needed!r}, which the prompts have not",
                    cure=f"add it to the prompts, or give the argument {needed!r} a default",
                )
        passed = {name: list(values) for name, values in arguments.items() if self.accepts(name)}
        try:
            returned = self.function(**passed)
            # A generator runs the user's code only here.
            items = list(returned) if _is_listlike(returned) else None
        except BaseException as error:
            pass_on_interrupt(error)
            raise RewardError(
                f"reward {self.name!r} raised {type(error).__name__}",
                cure="call it by hand on a few completions, or read this process's own traceback; "
                "the message is left out here because it may quote a prompt",
            ) from error
        if items is None:
            kind = "None" if returned is None else type(returned).__name__
            raise RewardError(
                f"reward {self.name!r} returned {kind} instead of a list",
                cure="return one number, or None, for each completion",
            )
        return items

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
                f"reward {self.name!r} returned {type(item).__name__} {where}",
                cure="return a number, or None",
            ) from None
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise RewardError(
                f"reward {self.name!r} returned {value} {where}",
                cure="return a finite number; None where the reward does not apply",
            )
        return value


def _keywords(name: str, function: RewardFunction) -> tuple[Callable[[str], bool], tuple[str, ...]]:
    """Which keywords a function takes, and which it cannot do without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise RewardError(
            f"reward {name!r} has no readable signature",
            cure="wrap it: def reward(prompts, completions, **columns)",
        ) from None
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise RewardError(
            f"reward {name!r} has arguments that cannot be passed by keyword",
            cure="remove the / from its signature",
        )
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needs = tuple(key for key, p in named.items() if p.default is p.empty)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda _: True, needs
    return lambda key: key in named, needs


def _is_listlike(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | set)
