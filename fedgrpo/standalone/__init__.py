"""Training on one machine, without any federation: ``fedgrpo train``.

The room reads the same settings as a federation, and never knows Flower. No privacy is applied: an
adapter made here is as private as the prompts that it was trained on.
"""

from fedgrpo.standalone.preparation import Preparation, prepare
from fedgrpo.standalone.training import train

__all__ = ["Preparation", "prepare", "train"]
