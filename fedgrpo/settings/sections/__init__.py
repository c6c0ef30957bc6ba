"""Sections of the settings: what each key means, its type and default, one file a subject."""
