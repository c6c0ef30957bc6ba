"""Find a reward function by name: built in, in an installed module, or in a file."""

from __future__ import annotations

import functools
from typing import Any

from fedgrpo.ground.parts import PartName
from fedgrpo.rewards.judges import judged  # noqa: F401 - registers them
from fedgrpo.rewards.registry import REWARDS, RewardFunction
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
    function, name = found.part, found.name
    # A keyword without a default may be a column of the prompts.
    options = REWARDS.options(function, name, lenient=True)
    if isinstance(function, type):
        return _made(function, name, options)
    if not options:
        return function

    @functools.wraps(function)
    def settled(*given: Any, **columns: Any) -> Any:
        return function(*given, **(columns | options))

    return settled


def _made(kind: type, name: PartName, options: dict[str, Any]) -> RewardFunction:
    """Make a reward that is a class: each mixture has its own, bound to its own trainer."""
    try:
        made: RewardFunction = kind(**options)
    except Exception as error:
        raise REWARDS.refusal(
            name,
            "is a class that cannot be made " + ("of these" if options else "without arguments"),
            "make one in a file and name that: my_reward = Class(...)",
        ) from error
    if not callable(made):
        raise REWARDS.refusal(
            name,
            f"makes a {kind.__name__}, which cannot be called",
            "give the class a method __call__(self, prompts, completions, **columns)",
        )
    return made
