"""Find a reward function by name: built in, in an installed module, or in a file."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from fedgrpo.ground.errors import RewardError
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


def load_reward(name: str) -> RewardFunction:
    """Find a reward function.

    Loading a module or a file runs its code with the rights of this process. The name must come
    from whoever owns the machine, never from a peer.

    Parameters
    ----------
    name:
        A built-in name, ``package.module:function`` or ``path/to/file.py:function``. A class is
        made without arguments; an object that can be called is taken as it is.

    Raises
    ------
    RewardError
        If the name is unknown, the module or file is missing or fails to load, or the function is
        missing, not callable or asynchronous. A failure while loading is chained; the message names
        its class only.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        return _made(name, _find_built_in(name))
    module = _load_file(place) if place.endswith(".py") else _load_module(place)
    function: object = getattr(module, attribute, None)
    if function is None:
        raise RewardError(
            f"reward {name!r}: {place} has no {attribute!r}", cure="check the function's name"
        )
    if not callable(function):
        raise RewardError(
            f"reward {name!r} is a {type(function).__name__}, which cannot be called",
            cure="name a function f(prompts, completions, **columns)",
        )
    if inspect.iscoroutinefunction(function):
        raise RewardError(
            f"reward {name!r} is asynchronous", cure="write it with def, not async def"
        )
    return _made(name, function)


def _made(name: str, function: RewardFunction) -> RewardFunction:
    """Make a reward that is a class: each mixture has its own, bound to its own trainer."""
    if not isinstance(function, type):
        return function
    try:
        made: RewardFunction = function()
    except Exception as error:
        raise RewardError(
            f"reward {name!r} is a class that cannot be made without arguments",
            cure="make one in a file and name that: my_reward = Class(...)",
        ) from error
    if not callable(made):
        raise RewardError(
            f"reward {name!r} makes a {function.__name__}, which cannot be called",
            cure="give the class a method __call__(self, prompts, completions, **columns)",
        )
    return made


def _find_built_in(name: str) -> RewardFunction:
    known = REWARDS
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise RewardError(
        f"unknown reward {name!r}",
        cure=f"{hint}built in are {', '.join(sorted(known))}; "
        "otherwise write package.module:function or path/to/file.py:function",
    )


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise RewardError(
                f"reward module {name!r} is not installed: there is no {missing!r}",
                cure="install it, or name its file: path/to/file.py:function",
            ) from None
        raise _failed(f"reward module {name!r}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"reward module {name!r}", error) from error


def _load_file(name: str) -> ModuleType:
    path = Path(name).expanduser()
    if not path.is_file():
        raise RewardError(f"reward file {name} does not exist", cure="check the path")
    # Named after the path, so that two files called reward.py do not meet in sys.modules, where
    # dataclasses and pickle look modules up.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(f"_fedgrpo_reward_{digest}", path)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise _failed(f"reward file {name}", error) from error
    return module


def _failed(what: str, error: BaseException) -> RewardError:
    if isinstance(error, ModuleNotFoundError):
        return RewardError(f"{what} needs {error.name!r}", cure=f"install {error.name}")
    return RewardError(
        f"{what} failed to load ({type(error).__name__})",
        cure="import it in Python by hand and mend the first error",
    )
