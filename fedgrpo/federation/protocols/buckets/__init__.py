"""Sums of a few holders under masks."""
