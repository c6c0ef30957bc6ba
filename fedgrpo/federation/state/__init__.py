"""What a node keeps: between the messages of a round, and on its own disk."""
