"""Prompts side by side that are strangers to each other: what prompt-level privacy rests on.

Each prompt's completions, rewards and gradient are a function of the prompt, its own key, the model
and shapes that follow from the settings and the prompt's own length.
"""
