"""Circuits on shares, and what carries them out."""
