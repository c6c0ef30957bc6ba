"""What a circuit needs of the protocol that evaluates it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fedgrpo.secure.committee.compute.planes import Words
from fedgrpo.secure.committee.steps import Member

Share = Words
"""uint64, shape (held, ..., W): one member's components of shared planes, of which each is the XOR
of all components. XOR of shares, a shift of lanes, an AND with a public plane and any choice or
repetition of planes act on each component by itself, so numpy does them and nothing is sent."""


class Engine(Protocol):
    """One member's side of a protocol for boolean circuits."""

    def conjoin(self, x: Share, y: Share) -> Member[Share]:
        """Bitwise AND, in one step; shapes broadcast."""

    def constant(self, planes: Words) -> Share:
        """Share public planes, shape (..., W), without a message."""

    def shared(self, components: Mapping[int, Words]) -> Share:
        """Share the XOR of components, given those that this member holds, each (..., W)."""

    def open(self, x: Share) -> Member[Words]:
        """Reveal shared planes to all members, in one step; shape (..., W)."""


def invert(engine: Engine, x: Share) -> Share:
    """Bitwise NOT."""
    return x ^ engine.constant(np.full(x.shape[1:], ~np.uint64(0)))


class Cleartext:
    """The protocol of one party that hides nothing: for counting what a circuit costs.

    Attributes
    ----------
    conjunctions:
        Planes ANDed so far.
    steps:
        Steps so far.
    widest:
        Planes of the widest step so far.
    """

    def __init__(self) -> None:
        self.conjunctions = 0
        self.steps = 0
        self.widest = 0

    def conjoin(self, x: Share, y: Share) -> Member[Share]:
        """Bitwise AND; counted."""
        z = x & y
        planes = math.prod(z.shape[1:-1])
        self.conjunctions += planes
        self.widest = max(self.widest, planes)
        self.steps += 1
        return z
        yield  # a generator, like every protocol's

    def constant(self, planes: Words) -> Share:
        """Return the planes themselves as the one component."""
        return planes[None].copy()

    def shared(self, components: Mapping[int, Words]) -> Share:
        """XOR of the components."""
        return np.asarray(np.bitwise_xor.reduce(list(components.values()))[None])

    def open(self, x: Share) -> Member[Words]:
        """Return the one component."""
        self.steps += 1
        return np.asarray(x[0])
        yield
