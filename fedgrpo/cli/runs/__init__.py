"""Commands that make a run, and the one that tells what it came to."""
