"""Find a reward function, or a metric of a user's own, by name: built in, in an installed module,
or in a file.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fedgrpo.ground.parts import PartName, Registry
from fedgrpo.rewards.judges import judged  # noqa: F401 - registers them
from fedgrpo.rewards.registry import OWN_METRICS, REWARDS, OwnMetric, RewardFunction
from fedgrpo.rewards.verifiable import (
    formats,  # noqa: F401 - registers them
    grounding,  # noqa: F401 - registers them
    repetition,  # noqa: F401 - registers them
    self_consistency,  # noqa: F401 - registers them
    symbolic,  # noqa: F401 - registers them
    verifiers,  # noqa: F401 - registers them
)


def load_reward(text: str) -> RewardFunction:
    """Find a reward function.

    Loading a module or a file runs its code with the rights of this process. The name must come
    from whoever owns the machine, never from a peer.

    Parameters
    ----------
    text:
        A built-in name, ``package.module:function`` or ``path/to/file.py:function``, with options.
        A class is made with them; an object that can be called is taken as it is. Each call runs a
        file's code again, so that no two mixtures share anything.

    Raises
    ------
    RewardError
        If there is none, it fails to load, cannot be called, or its options do not
        fit. A failure while loading is chained; the message names its class only.
    """
    found = REWARDS.find(text, afresh=True)
    return _with_options(REWARDS, found.part, found.name)


def load_metric(text: str) -> OwnMetric:
    """Find a metric of a module or file, as :func:`load_reward` finds a reward.

    Raises
    ------
    RewardError
        As there; also if it wants the trainer's model, which metrics are not lent.
    """
    found = OWN_METRICS.find(text, afresh=True)
    function = _with_options(OWN_METRICS, found.part.function, found.name)
    if hasattr(function, "bind"):
        raise OWN_METRICS.refusal(
            found.name,
            "it wants the trainer's model, which metrics are not lent",
            "measure completions by themselves, or make it a reward of weight 0",
        )
    return replace(found.part, function=function)


def load_metrics(texts: Iterable[str]) -> dict[str, OwnMetric]:
    """Find several, by the names of their figures; raises RewardError as :func:`load_metric`."""
    # Imported here, because the processes that judge are to start fast.
    from fedgrpo.settings import figure_name

    return {figure_name(text): load_metric(text) for text in texts}


def span_of(text: str) -> tuple[float, float]:
    """Between which values a metric of a module or file is reported; raises RewardError if it
    cannot be found.
    """
    return OWN_METRICS.find(text).part.span


def _with_options(
    registry: Registry[Any], function: RewardFunction, name: PartName
) -> RewardFunction:
    # A keyword without a default may be a column of the prompts.
    options = registry.options(function, name, lenient=True)
    if isinstance(function, type):
        return _made(registry, function, name, options)
    if not options:
        return function

    @functools.wraps(function)
    def settled(*given: Any, **columns: Any) -> Any:
        return function(*given, **(columns | options))

    return settled


def _made(
    registry: Registry[Any], kind: type, name: PartName, options: dict[str, Any]
) -> RewardFunction:
    """Make what is a class: each mixture has its own, bound to its own trainer."""
    try:
        made: RewardFunction = kind(**options)
    except Exception as error:
        raise registry.refusal(
            name,
            "is a class that cannot be made " + ("of these" if options else "without arguments"),
            "make one in a file and name that: my_reward = Class(...)",
        ) from error
    if not callable(made):
        raise registry.refusal(
            name,
            f"makes a {kind.__name__}, which cannot be called",
            "give the class a method __call__(self, prompts, completions, **columns)",
        )
    return made
