"""How releases are brought together: a room or file for each ``aggregation.protocol``."""
