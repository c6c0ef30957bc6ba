"""All members in one process, in lockstep: for tests, benchmarks and simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fedgrpo.ground.errors import FedGRPOError, MemberLostError, ProtocolError
from fedgrpo.secure.committee.steps import MEMBERS, Member, Result, Step

Carrier = Callable[[int, int, bytes], bytes | None]
"""``(sender, receiver, message) -> what arrives``; None if nothing does."""


def deliver(sender: int, receiver: int, message: bytes) -> bytes | None:
    """Carry a message as it is."""
    return message


class GaveUpError(ProtocolError):
    """Another member raised; its own error says why."""


def play(
    members: Mapping[int, Member[Result]], carrier: Carrier = deliver
) -> dict[int, Result | FedGRPOError]:
    """Run members until each has returned or raised, and return how each ended."""
    outcomes: dict[int, Result | FedGRPOError] = {}
    waiting: dict[int, Step] = {}

    def resume(index: int, advance: Callable[[], Step]) -> None:
        try:
            waiting[index] = advance()
        except StopIteration as done:
            outcomes[index] = done.value
        except FedGRPOError as error:
            outcomes[index] = error

    for index, member in members.items():
        resume(index, partial(next, member))
    while waiting:
        steps = dict(waiting)
        waiting.clear()
        for index, step in steps.items():
            inbox = _collect(index, step, steps, outcomes, carrier)
            member = members[index]
            if isinstance(inbox, FedGRPOError):
                resume(index, partial(member.throw, inbox))
            else:
                resume(index, partial(member.send, inbox))
    return outcomes


def _collect(
    index: int,
    step: Step,
    steps: Mapping[int, Step],
    outcomes: Mapping[int, object],
    carrier: Carrier,
) -> dict[int, bytes] | FedGRPOError:
    """Carry what a member waits for to it, or say why it will not come."""
    inbox = {}
    for peer in sorted(step.expect):
        if peer not in steps and isinstance(outcomes.get(peer), FedGRPOError):
            return GaveUpError(f"committee member {peer} gave up", cure="see why in its own error")
        sent = steps[peer].outgoing.get(index) if peer in steps else None
        message = None if sent is None else carrier(peer, index, sent)
        if message is None:
            return MemberLostError(
                peer,
                f"committee member {peer} is gone: its message did not come",
                cure=f"see that member {peer} runs, and run the round again",
            )
        inbox[peer] = message
    return inbox


def run(member: Callable[[int], Member[Result]], *, carrier: Carrier = deliver) -> Result:
    """Run a round with four members, and return what the first one comes to.

    Parameters
    ----------
    member:
        ``index -> generator``.
    carrier:
        What becomes of messages.

    Raises
    ------
    FedGRPOError
        The first error of a member, preferring one that says more than that another is gone.
    """
    outcomes = play({index: member(index) for index in range(MEMBERS)}, carrier)
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, FedGRPOError)]
    hearsay = (MemberLostError, GaveUpError)
    for error in sorted(errors, key=lambda error: isinstance(error, hearsay)):
        raise error
    return next(iter(outcomes.values()))  # type: ignore[return-value]
