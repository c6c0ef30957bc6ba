"""Completions: sampled, packed, scored, judged."""
