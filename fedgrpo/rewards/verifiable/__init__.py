"""Rewards that compare and count: no model is asked."""
