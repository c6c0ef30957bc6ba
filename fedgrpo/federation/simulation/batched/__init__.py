"""Everybody's releases of a simulated round, computed together and handed out one by one."""
