"""Where completions come from besides the plain prompt: refinements after a critique, or sampling
with the reference answer in sight.
"""

from fedgrpo.grpo.methods.guidance import contexts, critique
from fedgrpo.grpo.methods.guidance.base import GUIDES, Guide, register_guide

__all__ = ["GUIDES", "Guide", "contexts", "critique", "register_guide"]
