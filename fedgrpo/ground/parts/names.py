"""How a setting names a part: ``sapo``, ``sapo(positive=1.1)``, ``package.module:f`` or
``path/to/file.py:f(x=2, name="a")``. One text, because Flower's run configuration carries no more.

Adversary: a server, whose settings name what a node would run. Reading a name runs nothing: options
are literals, and the numbers among them are as bounded as settings are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedgrpo.ground.errors import FedGRPOError, SettingsError

LONGEST = 2000
"""Most characters of one name with its options."""
LARGEST = 1e9
"""Largest size of a number among the options, as among the settings."""

PLAIN = r"[^():,/\\\s]+"
"""Pattern of a name: no slash or space, since a folder may have parentheses."""

# A place is tried last, so that a colon within an option's text is none.
_FORM = re.compile(rf"(?:(?P<place>.*?):)??(?P<name>(?:{PLAIN})?)(?P<options>\(.*\))?", re.DOTALL)


@dataclass(frozen=True)
class PartName:
    """A part's name, read."""

    text: str
    """As the setting has it."""
    place: str | None
    """Module or ``.py`` file that it comes from; None for what is built in or registered."""
    name: str
    """Without place and options."""
    options: Mapping[str, Any]
    """What stands in the parentheses."""

    @property
    def short(self) -> str:
        """Name and options, without the place."""
        return self.text if self.place is None else self.text[len(self.place) + 1 :]

    @classmethod
    def read(cls, text: str, key: str, error: type[FedGRPOError] = SettingsError) -> PartName:
        """Read a name.

        Parameters
        ----------
        text:
            The setting's value, or one item of it.
        key:
            The setting, for errors.

        Raises
        ------
        FedGRPOError
            Of that class, if the text is no name with options, or an option no literal.
        """
        form = _FORM.fullmatch(text) if len(text) <= LONGEST else None
        if form is None:
            raise _unreadable(text[:LONGEST], key, error)
        try:
            options = dict(_options(form["options"] or "()"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _unreadable(text, key, error) from None
        return cls(text, form["place"], form["name"], options)


def part_name(text: str) -> str:
    """The name of what is built in, without its options: to ask which one a setting chooses."""
    return text.partition("(")[0]


def brings_code(text: str) -> bool:
    """Whether a name leads to a module or a file, whose code would be run."""
    form = _FORM.fullmatch(text) if len(text) <= LONGEST else None
    return form is None or form["place"] is not None


def split_names(text: str) -> tuple[str, ...]:
    r"""Split ``"a, b(x=1, y=2)"`` at the commas that no parentheses enclose; ``\,`` is none."""
    cuts = [i for i in _outer_commas(text) if i == 0 or text[i - 1] != "\\"]
    starts, ends = [0, *(cut + 1 for cut in cuts)], [*cuts, len(text)]
    items = (_plain(text[start:end]) for start, end in zip(starts, ends, strict=True))
    return tuple(item.strip() for item in items if item.strip())


def join_names(names: Iterable[object]) -> str:
    """Write names as one text, which :func:`split_names` takes apart: a folder may have a comma."""
    return ", ".join(_escaped(str(name)) for name in names)


def _outer_commas(text: str) -> list[int]:
    """Where commas are that no parentheses enclose."""
    found, depth, quote = [], 0, ""
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif depth and character in "'\"":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and not depth:
            found.append(index)
    return found


def _escaped(name: str) -> str:
    for index in reversed(_outer_commas(name)):
        name = f"{name[:index]}\\{name[index:]}"
    return name


def _plain(item: str) -> str:
    for index in reversed(_outer_commas(item)):
        item = item[: index - 1] + item[index:]
    return item


def absolute_part(text: str, base: Path) -> str:
    """Make the path of a part from a file absolute; relative ones are read from ``base``."""
    form = _FORM.fullmatch(text) if len(text) <= LONGEST else None
    if form is None or not (form["place"] or "").endswith(".py"):
        return text
    place = (base / Path(form["place"]).expanduser()).resolve()
    return f"{place}:{form['name']}{form['options'] or ''}"


def _options(text: str) -> Iterator[tuple[str, Any]]:
    call = ast.parse(f"part{text}", mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError
    if len({keyword.arg for keyword in call.keywords}) < len(call.keywords):
        raise ValueError
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError
        value = ast.literal_eval(keyword.value)
        _check_literal(value)
        yield keyword.arg, value


def _check_literal(value: object) -> None:
    if isinstance(value, tuple | list):
        for item in value:
            _check_literal(item)
    elif isinstance(value, int | float):
        if not -LARGEST <= value <= LARGEST:  # True of NaN too.
            raise ValueError
    elif not isinstance(value, str | None):
        raise ValueError


def _unreadable(text: str, key: str, error: type[FedGRPOError]) -> FedGRPOError:
    return error(
        f"{key} = {text!r} cannot be read",
        cure="write name, or name(option=value, ...) with texts in quotes, True, False, None, "
        f"numbers up to {LARGEST:g}, or lists of these",
    )
