"""Dataclasses as named scalars, lists and arrays, and back: one form for what travels and what is
kept.

A value is written as a batch of one. A batch of dataclasses is a batch for each field; a batch of
lists is their lengths and one batch of all their items; a mapping is a list of keys and one of
values, an optional value a list of none or one. So every scalar type becomes one flat list, however
deep it is nested, and single where nothing is around it.

Adversary: whoever wrote what is read. Whatever it holds, :func:`unfold` gives a value of the
annotated types, of which all constraints hold, or a ProtocolError that names the field, never
another exception and never the field's content. It allocates nothing that was not sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError

T = TypeVar("T")

CURE = "run the same version of fedgrpo on both sides, and keep no state of another one"

_SCALARS = (bool, int, float, str, bytes)


def matching(pattern: str) -> Callable[[str], bool]:
    """Constraint: a text that matches as a whole."""
    return lambda text: bool(re.fullmatch(pattern, text))


def sized(length: int) -> Callable[[bytes], bool]:
    """Constraint: so many bytes."""
    return lambda data: len(data) == length


Digest = Annotated[str, matching("[0-9a-f]{64}")]
"""SHA-256, hexadecimal."""
Name = Annotated[str, matching("[0-9a-f]{32}")]
"""Half a digest, hexadecimal."""
Key = Annotated[bytes, sized(32)]
"""A key, or a digest."""


@dataclass(frozen=True)
class Folded:
    """A value's scalars and lists of scalars, and its arrays, by the paths of their fields."""

    scalars: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the scalars as text; bytes in hexadecimal."""
        return json.dumps({path: _shown(value) for path, value in self.scalars.items()})

    @classmethod
    def from_json(cls, text: str | bytes, arrays: Mapping[str, NDArray[Any]]) -> Folded:
        """Invert :meth:`to_json`; raises ProtocolError on any other text."""
        try:
            return cls({path: _hidden(v) for path, v in json.loads(text).items()}, dict(arrays))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise ProtocolError(f"{len(text)} characters of facts are unreadable", cure=CURE) from (
                None
            )


def fold(value: object) -> Folded:
    """Write a dataclass."""
    folded = Folded()
    _write(type(value), "", [value], folded)
    return folded


def unfold(kind: type[T], folded: Folded) -> T:
    """Read a dataclass; raises ProtocolError on anything that is none, or breaks a constraint."""
    return cast(T, _read(kind, "", 1, folded)[0])


def _write(kind: Any, path: str, batch: list[Any], to: Folded) -> None:
    bare, _ = _bare(kind)
    if is_dataclass(bare):
        for name, inner in _fields(cast(type, bare)).items():
            _write(inner, _under(path, name), [getattr(value, name) for value in batch], to)
    elif _is_array(bare):
        to.arrays.update(dict(zip(_places(path, len(batch)), batch, strict=True)))
    elif not (inner := _inner(bare)):
        _put(to, path, [v.value if isinstance(v, Enum) else v for v in batch])
    else:
        rows = [_row(bare, value) for value in batch]
        _put(to, f"{path}#", [len(row) for row in rows])
        if len(inner) == 2:
            _write(inner[0], f"{path}[keys]", [key for value in batch for key in value], to)
        _write(inner[-1], f"{path}[]", [item for row in rows for item in row], to)


def _read(kind: Any, path: str, count: int, of: Folded) -> list[Any]:
    bare, constraints = _bare(kind)
    batch = _values(bare, path, count, of)
    for holds in constraints:
        if not all(map(holds, batch)):
            raise ProtocolError(f"field {path!r} is not what it must be", cure=CURE)
    return batch


def _values(kind: Any, path: str, count: int, of: Folded) -> list[Any]:
    if is_dataclass(kind):
        names = _fields(cast(type, kind))
        columns = [_read(inner, _under(path, n), count, of) for n, inner in names.items()]
        made = cast(Callable[..., Any], kind)
        return [made(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    if _is_array(kind):
        return [_array(kind, place, of) for place in _places(path, count)]
    if not (inner := _inner(kind)):
        return _scalars(kind, path, count, of)
    lengths = _scalars(int, f"{path}#", count, of)
    most = 1 if _is_optional(kind) else float("inf")
    if any(not 0 <= length <= most for length in lengths):
        raise ProtocolError(f"field {path!r} has an impossible length", cure=CURE)
    total = sum(lengths)
    keys = _read(inner[0], f"{path}[keys]", total, of) if len(inner) == 2 else None
    items = _read(inner[-1], f"{path}[]", total, of)
    if keys is None:
        return [_container(kind, row) for row in _split(items, lengths)]
    pairs = [dict(row) for row in _split(zip(keys, items, strict=True), lengths)]
    if [len(found) for found in pairs] != lengths:
        raise ProtocolError(f"field {path!r} names a key twice", cure=CURE)
    return pairs


def _scalars(kind: type, path: str, count: int, of: Folded) -> list[Any]:
    """Read one value for each of a batch, of exactly that type."""
    found = of.scalars.get(path)
    column = found if _is_many(path) else [found]
    stored = str if issubclass(kind, Enum) else kind
    if not isinstance(column, list) or any(type(value) is not stored for value in column):
        raise ProtocolError(f"field {path!r} is missing or no {kind.__name__}", cure=CURE)
    if len(column) != count:
        raise ProtocolError(f"field {path!r} has {len(column)} values for {count}", cure=CURE)
    try:
        return [kind(value) for value in column] if stored is not kind else column
    except ValueError:
        raise ProtocolError(f"field {path!r} is no known {kind.__name__}", cure=CURE) from None


def _array(kind: Any, place: str, of: Folded) -> NDArray[Any]:
    array, wanted = of.arrays.get(place), get_args(get_args(kind)[1])[0]
    if array is None:
        raise ProtocolError(f"array {place!r} is missing", cure=CURE)
    if wanted not in (Any, np.generic) and array.dtype != np.dtype(wanted):
        raise ProtocolError(f"array {place!r} is {array.dtype}, not {wanted.__name__}", cure=CURE)
    return array


def _bare(kind: Any) -> tuple[Any, tuple[Callable[[Any], bool], ...]]:
    """Tell a type from its constraints."""
    return (kind.__origin__, kind.__metadata__) if get_origin(kind) is Annotated else (kind, ())


def _inner(kind: Any) -> tuple[Any, ...]:
    """Types in a container: of its items, or of its keys and values; none for a scalar."""
    arguments = tuple(inner for inner in get_args(kind) if inner not in (Ellipsis, NoneType))
    if not arguments and not (kind in _SCALARS or issubclass(kind, Enum)):
        raise TypeError(f"{kind} is nothing that can be written")
    return arguments


def _container(kind: Any, row: list[Any]) -> Any:
    if _is_optional(kind):
        return row[0] if row else None
    return tuple(row) if get_origin(kind) is tuple else row


def _row(kind: Any, value: Any) -> list[Any]:
    """Items of one container."""
    if _is_optional(kind):
        return [] if value is None else [value]
    return list(value.values() if isinstance(value, Mapping) else value)


def _split(items: Iterable[T], lengths: Iterable[int]) -> Iterator[list[T]]:
    left = iter(items)
    return (list(islice(left, length)) for length in lengths)


def _put(to: Folded, path: str, column: list[Any]) -> None:
    to.scalars[path] = column if _is_many(path) else column[0]


def _is_many(path: str) -> bool:
    """Whether a path leads through a container, where a batch may have any length."""
    return "[" in path


def _places(path: str, count: int) -> Iterator[str]:
    return (f"{path}{n}" for n in range(count)) if _is_many(path) else iter([path])


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_array(kind: Any) -> bool:
    return get_origin(kind) is np.ndarray


@cache
def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {entry.name: hints[entry.name] for entry in fields(kind) if entry.init}


def _shown(value: Any) -> Any:
    """Bytes, alone or in a list, as JSON can hold them."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return {"hex": [item.hex() for item in value]}
    return value


def _hidden(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    text = value["hex"]
    return [bytes.fromhex(t) for t in text] if isinstance(text, list) else bytes.fromhex(text)
