"""One hypothesis profile: the same examples every time, no deadlines on busy machines; and files
that wait for processes come first, so that nobody waits for them at the end.
"""

import os

import pytest
from hypothesis import settings

# Small tensors: a second thread costs more than it brings, and it must be said before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("fedgrpo", deadline=None, derandomize=True)
settings.load_profile("fedgrpo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a test that starts Flower's processes first, then those with a slow one."""
    waits: dict[str, int] = {}
    for item in items:
        rank = 2 * bool(item.get_closest_marker("flower")) + bool(item.get_closest_marker("slow"))
        path = str(item.path)
        waits[path] = max(rank, waits.get(path, 0))
    items.sort(key=lambda item: -waits[str(item.path)])
