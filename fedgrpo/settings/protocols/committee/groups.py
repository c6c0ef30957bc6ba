"""How many values a committee trims in each coordinate: one a client, or sums of a few clients.

It follows from the number of clients alone, so settings know it before anybody has trained.
"""

from __future__ import annotations

MOST_GROUPS = 20
"""Values that a network is searched for which takes the outer ones off; the search doubles with
each more. Of more clients, a few each are summed first.
"""
LEFT = 3
"""Values that a trimmed mean leaves at least."""


def bucket_of(clients: int) -> int:
    """Clients that are summed before trimming: 1 of up to 20, 2 of 21."""
    return -(-clients // MOST_GROUPS)


def groups_of(clients: int) -> int:
    """Values that are left to trim: 20 of 20 clients, 11 of 21. Zeros fill the last one."""
    return -(-clients // bucket_of(clients)) if clients else 0


def most_trim(clients: int) -> int:
    """Largest trim of a trimmed mean: 8 of 20 clients, 4 of 21; below 0 of fewer than three."""
    return (groups_of(clients) - LEFT) // 2
