"""The contract between a committee member and whatever carries its messages.

A member is a plain generator: it does no I/O, keeps no clock and draws no randomness. It yields a
:class:`Step` and is sent the messages that the step expects; it returns its result. All that it
ever knows is the keys and shares it was made from and the messages it was sent, so a transcript of
the latter replays it, byte for byte, in another process.

How a round ends early is the driver's business, and matters. Whatever goes wrong with a step is
thrown into the generator, which knows whether its part of the result was opened by then
(:class:`~fedgrpo.ground.errors.OpenedError`). A member that raises says so to the others, by a
message that gives no reason, and their drivers throw a
:class:`~fedgrpo.ground.errors.ProtocolError`. Only where neither a message came nor such word do
they throw :class:`~fedgrpo.ground.errors.MemberLostError`. Were the two alike, a cheat that is
found out could go on with two others as if the member who found it out had crashed.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fedgrpo.settings.protocols.committee.members import MEMBERS

__all__ = ["MEMBERS", "Member", "Result", "Step"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """What a member sends now, and from whom it must hear before it goes on.

    The lengths of the messages, and who sends to whom at which step, follow from the public
    parameters of the round alone, never from a value.
    """

    outgoing: Mapping[int, bytes]
    """Message for each other member that gets one, by its number. The driver delivers it as it is,
    in order, and once."""
    expect: frozenset[int]
    """Numbers of the members whose message of this step is awaited, each from the link that
    authenticates that member. The driver sends exactly these into the generator; where one is late
    or its sender is gone, the driver throws an error that names the member instead."""


Member = Generator[Step, Mapping[int, bytes], Result]
"""A member at work; ``next`` starts it, ``StopIteration.value`` is its result."""
