"""Parts that users extend, from anywhere: losses, advantages, methods, tasks, rewards, rules,
server optimisers, attacks, presets.

A part is built in, registered by whoever imports the package, or named with its module or file; how
is in :mod:`fedgrpo.ground.parts.names`. Its options are the keywords of its own signature that have
a default or stand behind the ``*``. Loading a module or a file runs its code with the rights of
this process, so on a node the site's policy decides what may be named.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar, cast, get_type_hints

from fedgrpo.ground.errors import FedGRPOError, SettingsError
from fedgrpo.ground.parts.loading import Stamp, load_place, stamp_of
from fedgrpo.ground.parts.names import PLAIN, PartName

T = TypeVar("T")

_DECLARED = "_fedgrpo_declared"


@dataclass(frozen=True)
class _Loaded(Generic[T]):
    """A part with its options, as long as its file stays as it is."""

    part: T
    stamp: Stamp


class Registry(Mapping[str, T]):
    """Parts of one kind by name, in the order in which they were registered.

    ``registry[text]`` finds what a setting names, with its options in place. As a mapping it has
    the registered ones only.

    Parameters
    ----------
    key:
        The setting that names one of them, for errors: ``grpo.loss``.
    error:
        Class of the error for what cannot be found or used.
    kind:
        Frozen dataclass that a part is, where it is more than a function: its first field is the
        function, and the others have the careful defaults of one that declares nothing.
    data:
        Class of a part that is plain data: a module or file has it, or a function that makes it.
    awaits:
        Whether parts may be asynchronous.

    Examples
    --------
    >>> SHAPES = Registry("shape")
    >>> @SHAPES.register("square")
    ... def square(*, side: float = 1.0): ...
    >>> half = SHAPES["square(side=0.5)"]
    """

    def __init__(
        self,
        key: str,
        error: type[FedGRPOError] = SettingsError,
        kind: type[T] | None = None,
        data: type[T] | None = None,
        *,
        awaits: bool = False,
    ) -> None:
        self.key = key
        self.error = error
        self._kind = kind
        self._data = data
        self._awaits = awaits
        self._entries: dict[str, T] = {}
        self._loaded: dict[str, _Loaded[T]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Add the decorated part under a name. The same definition, run again, takes its place.

        Raises
        ------
        FedGRPOError
            Of the registry's class, if the name is taken or no plain word: what means something in
            settings has no place in it.
        """

        def add(part: T) -> T:
            if not re.fullmatch(PLAIN, name):
                raise self.error(f"{self.key}: {name!r} is no name", cure="use a plain word")
            if name in self._entries and not self._is_again(self._entries[name], part):
                raise self.error(f"{self.key}: {name!r} is registered twice", cure="rename one")
            self._entries[name] = part
            self._loaded.clear()
            return part

        return add

    def declare(self, function: object, part: T) -> None:
        """Remember what a function says of itself, for whoever names it with its module or file."""
        setattr(function, _DECLARED, {**getattr(function, _DECLARED, {}), self.key: part})

    def __getitem__(self, text: str) -> T:
        if text in self._entries:
            return self._entries[text]
        known = self._loaded.get(text)
        if known and known.stamp == stamp_of(PartName.read(text, self.key, self.error).place):
            return known.part
        found = self.find(text)
        part = self._bound(found.part, found.name)
        if len(self._loaded) >= _MOST_LOADED:
            self._loaded.clear()
        self._loaded[text] = _Loaded(part, stamp_of(found.name.place))
        return part

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, text: str) -> None:
        """Raise the registry's error if there is no such part, or its options do not fit."""
        if text in self._entries:
            name = PartName.read(text, self.key, self.error)
            self.options(self._function(self._entries[text]), name)
        self[text]

    def find(self, text: str, *, afresh: bool = False) -> Found[T]:
        """Find a part, and read its options without holding them against it.

        Parameters
        ----------
        text:
            A name as settings have it.
        afresh:
            Run a file's code again even if it has been run, so that nothing is shared.

        Raises
        ------
        FedGRPOError
            Of the registry's class, if there is none, or its module or file fails to load. What
            failed is chained; the message names its class only.
        """
        name = PartName.read(text, self.key, self.error)
        if name.place is None:
            return Found(self._built_in(name), name)
        thing = load_place(name.place, f"{self.key} = {text!r}", self.error, afresh=afresh)
        return Found(self._usable(getattr(thing, name.name, None), name), name)

    def refusal(self, name: PartName, problem: str, cure: str) -> FedGRPOError:
        """Make the error for a part that cannot be used."""
        return self.error(f"{self.key} = {name.text!r}: {problem}", cure=cure)

    def options(
        self, function: Callable[..., Any], name: PartName, *, lenient: bool = False
    ) -> dict[str, Any]:
        """Hold the options that a name gives against a signature.

        Parameters
        ----------
        function:
            Whose.
        name:
            What gives them.
        lenient:
            A keyword without a default may stay out: something else fills it.

        Raises
        ------
        FedGRPOError
            Of the registry's class, for an option that is unknown, missing or of a wrong type.
        """
        known = _parameters(function)
        choice = f"choose from {', '.join(known)}" if known else "it takes none"
        for option in name.options:
            if option not in known:
                raise self.refusal(name, f"there is no option {option!r}", choice)
        missing = [option for option, default in known.items() if default is _NOTHING]
        if not lenient and (left := [option for option in missing if option not in name.options]):
            raise self.refusal(
                name, f"option {left[0]!r} is missing", f"write {name.name}({left[0]}=...)"
            )
        for option, value in name.options.items():
            if problem := _type_problem(function, option, known[option], value):
                raise self.refusal(
                    name, f"option {option} = {value!r}: {problem}", f"correct {option}"
                )
        return dict(name.options)

    def _built_in(self, name: PartName) -> T:
        if name.name in self._entries:
            return self._entries[name.name]
        close = difflib.get_close_matches(name.name, self._entries, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        if name.name.endswith(".py"):
            hint = f"name what is meant in that file: {name.name}:NAME; or "
        raise self.error(
            f"{self.key} = {name.text!r} is unknown",
            cure=f"{hint}choose from {', '.join(sorted(self._entries))}; or name your own: "
            "package.module:function or path/to/file.py:function",
        )

    def _usable(self, thing: object, name: PartName) -> T:
        """A part out of what a module or file has under a name."""
        if thing is None:
            raise self.refusal(
                name, f"{name.place} has no {name.name!r}", "check the function's name"
            )
        if (wanted := self._kind or self._data) and isinstance(thing, wanted):
            return thing
        if not callable(thing):
            raise self.refusal(
                name, f"it is a {type(thing).__name__}, which cannot be called", "name a function"
            )
        if inspect.iscoroutinefunction(thing) and not self._awaits:
            raise self.refusal(name, "it is asynchronous", "write it with def, not async def")
        declared = getattr(thing, _DECLARED, {})
        if declared and self.key not in declared:
            raise self.refusal(name, f"it is declared for {', '.join(declared)}", "name another")
        kind: Any = self._kind or (lambda function: function)
        return cast(T, declared[self.key] if declared else kind(thing))

    def _bound(self, part: T, name: PartName) -> T:
        """The part with its options in place."""
        function = self._function(part)
        options = self.options(function, name)
        if self._data:
            return self._made(part, options, name)
        if not options:
            return part
        bound = functools.partial(function, **options)
        if not self._kind:
            return cast(T, bound)
        changed: Any = part
        return cast(T, replace(changed, **{fields(changed)[0].name: bound}))

    def _made(self, part: T, options: Mapping[str, Any], name: PartName) -> T:
        """Data as it is, or what a function makes of its options."""
        wanted, made = cast(type[T], self._data), cast(Any, part)
        if not isinstance(made, wanted):
            made = made(**options)
        if not isinstance(made, wanted):
            raise self.refusal(
                name, f"returns a {type(made).__name__}", f"return a {wanted.__name__}"
            )
        return made

    def _function(self, part: T) -> Callable[..., Any]:
        thing: Any = part
        return cast(
            Callable[..., Any], getattr(thing, fields(thing)[0].name) if self._kind else thing
        )

    def _is_again(self, old: T, new: T) -> bool:
        """Whether two are one definition: a notebook's cell, or a file, that was run again."""
        if self._data:
            return old == new
        origins = [
            (getattr(function, "__module__", None), getattr(function, "__qualname__", None))
            for function in map(self._function, (old, new))
        ]
        return old is new or (None not in origins[0] and origins[0] == origins[1])


@dataclass(frozen=True)
class Found(Generic[T]):
    """A part without its options, and the name that gives these."""

    part: T
    name: PartName


_MOST_LOADED = 256
_NOTHING: Any = inspect.Parameter.empty


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The keywords of a signature that are options, with their defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # Of what is written in C.
        return {}
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
        or (parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is not _NOTHING)
    }


def _type_problem(
    function: Callable[..., Any], option: str, default: object, value: object
) -> str | None:
    """What is wrong with an option's value by its annotation, or else by its default's type."""
    try:
        owner = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        wanted = get_type_hints(owner, include_extras=True)[option]
    except (KeyError, NameError, TypeError, AttributeError):
        if default is _NOTHING or default is None:
            return None
        wanted = type(default)
    # Imported here, because the process that judges is to start fast.
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    rules = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        TypeAdapter(wanted, config=rules).validate_python(value)
    except PydanticUserError:
        return None  # A type of which nothing can be said.
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return None
