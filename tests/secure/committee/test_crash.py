"""A member that crashes ends the round: unopened, or marked as one that may have been opened."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fedgrpo.ground.errors import MemberLostError, OpenedError, ProtocolError
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.links.driving import drive, loss_behind
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.in_process import play, run
from fedgrpo.secure.committee.links.relay import ReplayableMember
from fedgrpo.secure.committee.steps import MEMBERS, Step
from tests.secure.committee.parts import COMMITTEE, IDENTITIES
from tests.secure.committee.parts import SESSION as PARTS_SESSION
from tests.secure.committee.rounds import Tap, members

PLAN = Plan(5, 100, trim=1, bits=4, sigma=50.0, circuit="log")
VALUES = np.random.default_rng(0).integers(0, 16, (5, 100))
MAKE = members([VALUES], [PLAN])
HONEST = Tap()
RESULT = run(MAKE, carrier=HONEST)
LAST = max(step for step, *_ in HONEST.messages)


def crash(member: int, at: int, beyond: int = 10**9) -> Tap:
    """A carrier that loses all that a member sends from a step on."""
    return Tap(lambda s, a, b, sent: None if a == member and at <= s < beyond else sent)


@pytest.mark.parametrize("lost", range(MEMBERS))
def test_a_crash_ends_the_round_and_opens_nothing(lost: int) -> None:
    tap = crash(lost, LAST // 2)
    with pytest.raises(MemberLostError, match=f"member {lost} is gone"):
        run(MAKE, carrier=tap)
    assert max(step for step, *_ in tap.messages) <= LAST // 2 + 1


def test_a_crash_in_the_opening_is_final() -> None:
    with pytest.raises(OpenedError, match="member 2 is gone"):
        run(MAKE, carrier=crash(2, LAST))


def test_two_crashes_end_the_round() -> None:
    with pytest.raises(MemberLostError):
        run(MAKE, carrier=Tap(lambda s, a, b, m: None if a in (1, 2) else m))


class Recorded:
    """Links of member 0 that bring what an honest round brought, and fail at one step."""

    def __init__(self, fails_at: int, error: ProtocolError) -> None:
        self._fails_at, self._error, self._step = fails_at, error, -1

    def exchange(self, step: Step) -> dict[int, bytes]:
        self._step += 1
        if self._step == self._fails_at:
            raise self._error
        return {s: sent for at, s, r, sent in HONEST.messages if (at, r) == (self._step, 0)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [MemberLostError(2, "member 2 is gone"), ProtocolError("member 2 broke the protocol")]
)
def test_a_driver_learns_whether_the_member_had_opened(error: ProtocolError) -> None:
    assert drive(MAKE(0), Recorded(LAST + 1, error))[0].bits == RESULT[0].bits
    with pytest.raises(OpenedError, match="count the round as released"):
        drive(MAKE(0), Recorded(LAST, error))
    for step in range(LAST):
        with pytest.raises(ProtocolError) as caught:
            drive(MAKE(0), Recorded(step, error))
        assert caught.value is error


@pytest.mark.slow
@pytest.mark.parametrize("deliveries", range(LAST + 2))
def test_a_relayed_member_learns_whether_it_had_opened(deliveries: int) -> None:
    relayed = {
        m: ReplayableMember(Party(m, IDENTITIES[m], COMMITTEE, PARTS_SESSION), partial(MAKE, m))
        for m in range(MEMBERS)
    }
    sealed = {m: member.begin() for m, member in relayed.items()}
    for _ in range(deliveries):
        sealed = {
            m: member.deliver({s: sent[m] for s, sent in sealed.items() if m in sent})
            for m, member in relayed.items()
        }
    error = MemberLostError(2, "member 2 is gone")
    reported = relayed[0].abandon(error)
    assert isinstance(reported, OpenedError) if deliveries == LAST else reported is error
    with pytest.raises(ProtocolError):
        relayed[0].deliver({})


@pytest.mark.parametrize(("step", "confirmed"), [(0, False), (LAST - 2, False), (LAST - 1, True)])
def test_a_loss_tells_whether_another_may_have_opened(step: int, confirmed: bool) -> None:
    ends = play({m: MAKE(m) for m in range(MEMBERS)}, crash(2, step))
    # Nothing reaches the others, but all reaches the member, which is at the opening for all that.
    assert isinstance(ends[2], OpenedError) == confirmed
    for member in (0, 1, 3):
        loss = loss_behind(ends[member])  # type: ignore[arg-type]
        assert loss is not None
        assert (loss.member, loss.confirmed) == (2, confirmed)


def test_a_loss_in_the_opening_is_behind_the_error_that_says_it_may_be_out() -> None:
    with pytest.raises(OpenedError) as caught:
        run(MAKE, carrier=crash(2, LAST))
    loss = loss_behind(caught.value)
    assert loss is not None
    assert loss.member == 2
    assert loss_behind(ProtocolError("it cheated")) is None
