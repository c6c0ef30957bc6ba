"""What travels: messages, the round trip, and what both sides derive alike."""
