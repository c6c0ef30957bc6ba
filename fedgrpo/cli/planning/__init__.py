"""Commands before a run: what it would cost, and what taking part would mean."""
