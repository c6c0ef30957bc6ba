"""From judged completions to a step: advantages, losses, update, figures."""
