"""What releases cost together, and planning with it."""
