"""Rewards in a process that remembers nothing."""
