"""Trying a run before it is one: what would leave, and a clipping norm from public prompts."""
