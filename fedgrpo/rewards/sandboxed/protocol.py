"""What a worker is started with, and what comes back of a group: numbers, or a fixed few bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits

JUDGED, RAISED, REFUSED = b"\x00", b"\x01", b"\x02"
"""How a child's answer begins: numbers follow; the function's number (uint16) and the class of what
it raised; the number of a function that returned something else than numbers.
"""
ENDED, FAILED, LATE, KILLED = b"e", b"f", b"l", b"k"
"""How a child ended, as the worker reports it: well or not, too late, or killed by the signal whose
number follows.
"""
GROUP, TRY, RECEIVED = b"g", b"t", b"r"
"""What a template is told: to fork for a group, or to try the sandbox; and what a child says when
it has its group.
"""


@dataclass(frozen=True)
class WorkerOrder:
    """What a worker is started with."""

    control: int
    """Descriptor of the socket over which groups come."""
    parent: int
    """Number of the process that it works for."""
    names: tuple[str, ...]
    """Reward functions."""
    limits: WorkerLimits
    """Of one group."""
    metrics: tuple[str, ...] = ()
    """Metrics of users' own."""

    def to_json(self) -> str:
        """Write the order as a command line's argument."""
        return json.dumps({**self.__dict__, "limits": self.limits.__dict__})

    @classmethod
    def from_json(cls, text: str) -> WorkerOrder:
        """Read the order."""
        fields = json.loads(text)
        limits = WorkerLimits(**fields["limits"])
        names, metrics = tuple(fields["names"]), tuple(fields["metrics"])
        return cls(fields["control"], fields["parent"], names, limits, metrics)
