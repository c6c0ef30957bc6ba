"""Circuits on shares: what they compute, and what it costs."""
