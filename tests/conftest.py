"""One hypothesis profile: the same examples every time, no deadlines on busy machines."""

import os

from hypothesis import settings

# Small tensors: a second thread costs more than it brings, and it must be said before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("fedgrpo", deadline=None, derandomize=True)
settings.load_profile("fedgrpo")
