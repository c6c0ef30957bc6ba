"""The messages of one step, taken apart with the lengths that they must have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.compute.planes import Words


class Inbox:
    """Messages by their sender, read from the front.

    Parameters
    ----------
    messages:
        What the step brought.
    """

    def __init__(self, messages: Mapping[int, bytes]) -> None:
        self._messages = messages
        self._read = dict.fromkeys(messages, 0)

    def take(self, sender: int, length: int) -> bytes:
        """Take the sender's next bytes; raises ProtocolError if its message is too short."""
        start = self._read[sender]
        self._read[sender] = start + length
        taken = self._messages[sender][start : start + length]
        if len(taken) != length:
            raise suspicion(sender, f"its message of {len(self._messages[sender])} bytes is short")
        return taken

    def words(self, sender: int, count: int) -> Words:
        """Take the sender's next ``count`` little-endian words; uint64, shape (count,)."""
        return np.frombuffer(self.take(sender, 8 * count), "<u8").astype(np.uint64, copy=False)

    def close(self) -> None:
        """Hold that nothing is left; raises ProtocolError if a message is too long."""
        for sender, message in self._messages.items():
            if len(message) != self._read[sender]:
                raise suspicion(
                    sender, f"its message has {len(message)} bytes, not {self._read[sender]}"
                )


def suspicion(member: int, problem: str) -> ProtocolError:
    """Make the error for a message that only its sender can have spoilt."""
    return ProtocolError(
        f"committee member {member}: {problem}",
        cure=f"run the round again; if it recurs, have member {member} checked or replaced",
    )


def disagreement(sender: int, checker: int) -> ProtocolError:
    """Make the error for a message and a tag, from two members, that do not fit each other."""
    return ProtocolError(
        f"committee member {sender} sent what member {checker}'s tag does not fit: one of them is "
        "faulty or malicious",
        cure=f"run the round again; if it recurs, have members {sender} and {checker} checked",
    )
