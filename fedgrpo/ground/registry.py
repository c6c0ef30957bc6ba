"""Named parts that users extend: advantages, losses, tasks, rewards, rules, optimisers, attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from fedgrpo.ground.errors import FedGRPOError, SettingsError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Things of one kind by name, in the order in which they were registered.

    Parameters
    ----------
    key:
        The setting that names one of them, for errors: ``grpo.loss``.
    error:
        Class of the error for an unknown or doubled name.

    Examples
    --------
    >>> SHAPES = Registry("shape")
    >>> @SHAPES.register("square")
    ... def square(): ...
    """

    def __init__(self, key: str, error: type[FedGRPOError] = SettingsError) -> None:
        self.key = key
        self._error = error
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Add the decorated thing under a name.

        Raises
        ------
        FedGRPOError
            Of the registry's class, if the name is taken, empty or has a colon or comma, which
            separate names elsewhere.
        """

        def add(entry: T) -> T:
            if not name.strip() or set(name) & set(":,"):
                raise self._error(f"{self.key}: {name!r} is no name", cure="use a plain word")
            if self._entries.setdefault(name, entry) is not entry:
                raise self._error(f"{self.key}: {name!r} is registered twice", cure="rename one")
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        self.check(name)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, name: str) -> None:
        """Raise the registry's error, with the known names, if there is none of this name."""
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise self._error(f"{self.key} = {name!r} is unknown", cure=f"choose from {known}")
