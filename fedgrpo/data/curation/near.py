"""Which texts are nearly the same: MinHash with locality-sensitive hashing (Broder 1997; by the
library datasketch), each pair that it proposes then compared shingle by shingle.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from fedgrpo.ground.errors import SettingsError

PERMUTATIONS, SEED = 128, 1


def near_pairs(texts: Sequence[str], similarity: float, shingle: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions, the earlier one first, whose shingles overlap this much.

    No pair is wrong. Some may be missed, the more the closer they are to the threshold, always the
    same ones: the permutations have a fixed seed.

    Parameters
    ----------
    texts:
        Compared without spaces and case.
    similarity:
        Least Jaccard index, in (0, 1].
    shingle:
        Characters; a shorter text is one.

    Raises
    ------
    SettingsError
        If the library is not there.
    """
    library = _library()
    index = library.MinHashLSH(threshold=min(similarity, 0.99), num_perm=PERMUTATIONS)
    shingled = [_shingles(text, shingle) for text in texts]
    for place, pieces in enumerate(shingled):
        sketch = library.MinHash(num_perm=PERMUTATIONS, seed=SEED)
        sketch.update_batch([piece.encode() for piece in sorted(pieces)])
        for other in sorted(index.query(sketch)):
            common = len(pieces & shingled[other])
            if common >= similarity * (len(pieces) + len(shingled[other]) - common):
                yield other, place
        index.insert(place, sketch)


def library_version() -> str:
    """Name and version of the library, for the record."""
    return f"datasketch {version('datasketch')}"


def _shingles(text: str, size: int) -> frozenset[str]:
    plain = "".join(text.casefold().split())
    return frozenset(plain[at : at + size] for at in range(max(1, len(plain) - size + 1)))


def _library() -> Any:
    try:
        return importlib.import_module("datasketch")
    except ModuleNotFoundError:
        raise SettingsError(
            "near = ... needs the library datasketch",
            cure="pip install 'fedgrpo[curation]', or set near = 0",
        ) from None
