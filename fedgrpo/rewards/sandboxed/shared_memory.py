"""Memory that a process would share with those that it forks, made its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_FLAGS = re.compile(r"^VmFlags:(.*)$", re.MULTILINE)
_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value


def make_private() -> None:
    """Put a private copy in the place of every mapping that forked processes could write for
    others to read.

    A module may make one when it is imported: ``multiprocessing.Value``, a lock, a mapped file.
    Forked processes then have copies of their own, at the same addresses.

    Raises
    ------
    OSError
        If one cannot be read or replaced, as a device's.
    """
    for start, size in shared_mappings(Path("/proc/self/smaps").read_text()):
        _replace(start, size)


def shared_mappings(smaps: str) -> Iterator[tuple[int, int]]:
    """Address and size, in bytes, of the mappings that are shared and may be made writable.

    Parameters
    ----------
    smaps:
        What the kernel writes into ``/proc/self/smaps``.
    """
    for place, flags in zip(_MAPPING.finditer(smaps), _FLAGS.finditer(smaps), strict=True):
        if {"sh", "mw"} <= set(flags[1].split()):
            start, end = (int(address, 16) for address in place.groups())
            yield start, end - start


def _replace(start: int, size: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    readable = mmap.PROT_READ | mmap.PROT_WRITE
    address, length = ctypes.c_void_p(start), ctypes.c_size_t(size)
    if library.mprotect(address, length, readable) != 0:
        raise _error()
    content = ctypes.string_at(start, size)
    how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    if library.mmap(address, length, readable, how, -1, ctypes.c_long(0)) == _FAILED:
        raise _error()
    ctypes.memmove(start, content, size)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
