"""Who sits in a round, what they have promised, and the messages in which they say so."""
