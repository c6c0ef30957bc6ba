"""Reading Flower records that somebody else wrote: every field is checked for presence, type,
length and shape.

Adversary: whoever sent the message. Whatever a record holds, reading it gives the value or a
ProtocolError that names the field, never another exception and never the field's content.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError

T = TypeVar("T", bool, int, float, str, bytes)

_CURE = "run the same version of fedgrpo on server and nodes"
_NPY_HEADER = 4096
"""More bytes than the header of a serialised array ever takes."""


def config_record(content: RecordDict, name: str) -> ConfigRecord:
    """Return a ConfigRecord by name, or raise ProtocolError."""
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"record {name!r} is missing or of another kind", cure=_CURE)
    return record


def array_record(content: RecordDict, name: str) -> ArrayRecord:
    """Return an ArrayRecord by name, or raise ProtocolError."""
    record = content.get(name)
    if not isinstance(record, ArrayRecord):
        raise ProtocolError(f"record {name!r} is missing or of another kind", cure=_CURE)
    return record


def scalar(record: ConfigRecord, name: str, kind: type[T]) -> T:
    """Return one value of exactly that type, or raise ProtocolError."""
    value = record.get(name)
    if type(value) is not kind:
        raise ProtocolError(
            f"field {name!r} is {type(value).__name__}, not {kind.__name__}", cure=_CURE
        )
    return value


def values(record: ConfigRecord, name: str, kind: type[T]) -> list[T]:
    """Return a list of values of exactly that type, or raise ProtocolError."""
    found = record.get(name)
    if not isinstance(found, list) or any(type(item) is not kind for item in found):
        raise ProtocolError(f"field {name!r} is no list of {kind.__name__}", cure=_CURE)
    return cast(list[T], found)


def pairs(record: ConfigRecord, keys: str, items: str, kind: type[T]) -> dict[int, T]:
    """Return ``{node: value}`` from two lists of one length, or raise ProtocolError."""
    nodes, found = values(record, keys, int), values(record, items, kind)
    if len(nodes) != len(found) or len(set(nodes)) != len(nodes):
        raise ProtocolError(
            f"fields {keys!r} and {items!r} do not name one value for each of some distinct nodes",
            cure=_CURE,
        )
    return dict(zip(nodes, found, strict=True))


def array(
    record: ArrayRecord, name: str, dtype: str, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """Return an array of exactly that dtype and shape, or raise ProtocolError.

    Parameters
    ----------
    record, name:
        Where it is.
    dtype:
        NumPy's name, such as ``uint32``.
    shape:
        None accepts any.
    """
    item = record.get(name)
    if item is None:
        raise ProtocolError(f"array {name!r} is missing", cure=_CURE)
    loaded = _load(item, name)
    if loaded.dtype != np.dtype(dtype) or (shape is not None and loaded.shape != shape):
        raise ProtocolError(
            f"array {name!r} is {loaded.dtype} of shape {loaded.shape}, expected {dtype} of shape "
            f"{shape or 'any'}",
            cure=_CURE,
        )
    return loaded


def any_array(record: ArrayRecord, name: str) -> NDArray[Any]:
    """Return an array of whatever dtype and shape its sender says, or raise ProtocolError."""
    return _load(record[name], name)


def _load(item: Array, name: str) -> NDArray[Any]:
    # What the sender says about the array must be what the bytes hold. Anything else, and anything
    # that NumPy makes of a forged header, is one and the same fault.
    try:
        surplus = len(item.data) - np.dtype(item.dtype).itemsize * math.prod(item.shape)
        if not 0 <= surplus <= _NPY_HEADER:
            raise ValueError
        loaded = item.numpy()
        if str(loaded.dtype) != item.dtype or loaded.shape != tuple(item.shape):
            raise ValueError
    except Exception:
        raise ProtocolError(f"array {name!r} cannot be read", cure=_CURE) from None
    return loaded
