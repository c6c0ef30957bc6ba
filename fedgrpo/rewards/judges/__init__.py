"""Rewards that run a model."""
