"""The arrays of a message that a test reads, or has somebody forge."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord

from fedgrpo.ground.kept import pack_arrays, unpack_arrays

PACKED = "packed"


def arrays_of(record):
    return unpack_arrays(record[PACKED].numpy().tobytes())


def record_of(**arrays):
    return ArrayRecord({PACKED: Array(np.frombuffer(pack_arrays(arrays), np.uint8))})


def with_array(record, name, array):
    """Replace one array of a record, or add it."""
    return record_of(**arrays_of(record) | {name: array})
