"""Where completions come from besides the plain prompt: refinements after a critique, or sampling
with the reference answer in sight.
"""

from fedgrpo.grpo.guidance import contexts, critique
from fedgrpo.grpo.guidance.base import GUIDES, Guide, register_guide

__all__ = ["GUIDES", "Guide", "contexts", "critique", "register_guide"]
