"""Load a user's module, or file of Python, with errors that say what to mend."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from fedgrpo.ground.errors import FedGRPOError

Stamp = tuple[int, int, int] | None
"""Of a file: time of writing (ns), which whoever writes it may set; size (bytes); and time of the
last change of any kind (ns), which nobody sets. None where there is none.
"""

_FILES: dict[Path, tuple[Stamp, ModuleType]] = {}


def stamp_of(place: str | None) -> Stamp:
    """Tell a file, or that of a module, from what it was before. Nothing is imported."""
    if not place:
        return None
    try:
        status = Path(place if place.endswith(".py") else _file_of(place)).expanduser().stat()
    except (OSError, ImportError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ctime_ns


def _file_of(module: str) -> str:
    """Where a module would be imported from; raises ImportError if that cannot be told without
    importing what it lies in.
    """
    places: Sequence[str] | None = sys.path
    origin, parts = None, module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        try:
            found = PathFinder.find_spec(name, places) if places else None
        except KeyError:  # A folder within a package, and not a package itself.
            found = None
        if found is None:
            raise ImportError(name=name)
        places, origin = found.submodule_search_locations, found.origin
    if origin is None:
        raise ImportError(name=module)
    return origin


def load_place(
    place: str, what: str, error: type[FedGRPOError], *, afresh: bool = False
) -> ModuleType:
    """Import a module, or run a file.

    Parameters
    ----------
    place:
        Dotted name of a module, or path of a ``.py`` file.
    what:
        What asks for it, for errors.
    afresh:
        Run a file again even if it has been run and has not changed.

    Raises
    ------
    FedGRPOError
        Of that class. What failed is chained; the message names its class only, as its text may
        quote anything.
    """
    is_file = place.endswith(".py")
    path = Path(place).expanduser()
    if is_file and not path.is_file():
        raise error(f"{what}: {place} does not exist", cure="check the path")
    try:
        return _run(path, afresh) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as failure:
        if isinstance(failure, ModuleNotFoundError) and failure.name:
            missing = failure.name
            if not is_file and (place == missing or place.startswith(f"{missing}.")):
                raise error(
                    f"{what}: module {place!r} is not installed: there is no {missing!r}",
                    cure="install it, or name its file: path/to/file.py:function",
                ) from None
            problem, cure = f"{place} needs {missing!r}", f"install {missing}"
        else:
            problem = f"{place} failed to load ({type(failure).__name__})"
            cure = "import it in Python by hand and mend the first error"
        raise error(f"{what}: {problem}", cure=cure) from failure


class _AsWritten(SourceFileLoader):
    """Runs what a file says. A compiled copy beside it is believed by the file's size and second
    alone, so another program could be in it than people have read, and allowed by its hash.
    """

    def path_stats(self, path: object) -> NoReturn:
        """Know of no copy, and make none."""
        raise OSError(f"no copy of {path} is looked for")


def _run(path: Path, afresh: bool) -> ModuleType:
    """Run a file as a module, once as long as it does not change."""
    path = path.resolve()
    stamp = stamp_of(str(path))
    if not afresh and path in _FILES and _FILES[path][0] == stamp:
        return _FILES[path][1]
    # Named after the path, so that two files of one name do not meet in sys.modules, where
    # dataclasses and pickle look modules up.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    name = f"_fedgrpo_part_{digest}"
    loader = _AsWritten(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    if not afresh:
        _FILES[path] = stamp, module
    return module
