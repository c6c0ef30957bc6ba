"""Sums of a few clients under masks."""
