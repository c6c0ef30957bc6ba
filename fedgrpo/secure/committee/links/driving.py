"""What a transport offers, and the loop that runs a member on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from fedgrpo.ground.errors import MemberLostError, OpenedError, ProtocolError
from fedgrpo.secure.committee.steps import Member, Step

Result = TypeVar("Result")


class Links(Protocol):
    """Private and authenticated links from one member to the others."""

    def exchange(self, step: Step) -> Mapping[int, bytes]:
        """Send what the step sends and wait for the messages that it expects.

        Raises
        ------
        MemberLostError
            If a member is gone or silent.
        ProtocolError
            If a member broke the protocol.
        """


def loss_behind(error: BaseException | None) -> MemberLostError | None:
    """Return the loss of a member that ended a round, also where the result may be out already."""
    cause = error.__cause__ if isinstance(error, OpenedError) else error
    return cause if isinstance(cause, MemberLostError) else None


def drive(member: Member[Result], links: Links) -> Result:
    """Run a member to its end over links, and return its result.

    Whatever goes wrong with a step is thrown into the generator, which knows whether its part of
    the result is out by then.

    Raises
    ------
    MemberLostError
        If a member is lost.
    OpenedError
        If anything goes wrong after the member has sent its part of the opening.
    ProtocolError
        If a member broke the protocol.
    """
    try:
        step = next(member)
        while True:
            try:
                received = links.exchange(step)
            except ProtocolError as error:
                step = member.throw(error)
            else:
                step = member.send(received)
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        member.close()
