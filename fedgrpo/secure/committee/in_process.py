"""All members in one process, in lockstep: for tests, benchmarks and simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic

from fedgrpo.errors import FedGRPOError, MemberLostError, ProtocolError
from fedgrpo.secure.committee.steps import MEMBERS, Member, Result, Step

Carrier = Callable[[int, int, bytes], bytes | None]
"""``(sender, receiver, message) -> what arrives``; None if nothing does."""


def deliver(sender: int, receiver: int, message: bytes) -> bytes | None:
    """Carry a message as it is."""
    return message


class GaveUpError(ProtocolError):
    """Another member raised; its own error says why."""


@dataclass(frozen=True)
class Finished(Generic[Result]):
    """How a round ended well."""

    result: Result
    lost: int | None
    """The member without which it ended: the result is only as good as three honest members."""


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


def run(
    member: Callable[[int, int | None], Member[Result]],
    *,
    carry_on: bool,
    carrier: Carrier = deliver,
) -> Finished[Result]:
    """Run a round with four members, and again with three if one crashed and the settings allow it.

    Adversary: see :func:`~fedgrpo.secure.committee.round.aggregate`. Three carry on only if each of
    them lost the same fourth; an error of any other kind is final.

    Parameters
    ----------
    member:
        ``(index, lost) -> generator``.
    carry_on:
        Whether three may go on as semi-honest members.
    carrier:
        What becomes of messages.

    Raises
    ------
    FedGRPOError
        The first error of a member, preferring one that says more than that another is gone.
    """
    outcomes = play({index: member(index, None) for index in range(MEMBERS)}, carrier)
    lost = _lost_by_all(outcomes) if carry_on else None
    if lost is not None:
        left = (index for index in range(MEMBERS) if index != lost)
        outcomes = play({index: member(index, lost) for index in left}, carrier)
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, FedGRPOError)]
    hearsay = (MemberLostError, GaveUpError)
    for error in sorted(errors, key=lambda error: isinstance(error, hearsay)):
        raise error
    return Finished(next(iter(outcomes.values())), lost)  # type: ignore[arg-type]


def _lost_by_all(outcomes: Mapping[int, object]) -> int | None:
    """Find the member that each of the three others reports as gone."""
    for lost in range(MEMBERS):
        reports = [outcome for index, outcome in outcomes.items() if index != lost]
        if all(isinstance(r, MemberLostError) and r.member == lost for r in reports):
            return lost
    return None
