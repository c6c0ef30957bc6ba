"""Members in one process, for tests: deliver what they send, altered if a test wants it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

from fedgrpo.secure.committee.keys.identity import Committee, Identity
from fedgrpo.secure.committee.steps import Step

Result = TypeVar("Result")
Tamper = Callable[[int, int, int, bytes], bytes]
"""``(sender, receiver, number of the message, message) -> message``."""

SETTINGS = hashlib.sha256(b"settings").digest()
IDENTITIES = tuple(
    Identity(hashlib.sha256(b"sign%d" % m).digest(), hashlib.sha256(b"agree%d" % m).digest())
    for m in range(4)
)
COMMITTEE = Committee(tuple(i.public for i in IDENTITIES), ("",) * 4, SETTINGS)
SESSION = COMMITTEE.session("1", 2)


def secret(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def play(
    members: Mapping[int, Generator[Step, Mapping[int, bytes], Result]],
    tamper: Tamper = lambda sender, receiver, number, message: message,
) -> dict[int, Result | Exception]:
    """Run all members to their ends; results, or the exceptions that ended them."""
    ends: dict[int, Result | Exception] = {}
    steps: dict[int, Step] = {}
    wires: dict[tuple[int, int], deque[bytes]] = {}
    numbers: dict[tuple[int, int], int] = {}

    def advance(m: int, received: Mapping[int, bytes] | None) -> None:
        try:
            step = members[m].send(received)  # type: ignore[arg-type]
        except StopIteration as stop:
            steps.pop(m, None)
            ends[m] = stop.value
            return
        except Exception as error:
            steps.pop(m, None)
            ends[m] = error
            return
        steps[m] = step
        for peer, message in step.outgoing.items():
            number = numbers[m, peer] = numbers.get((m, peer), -1) + 1
            wires.setdefault((m, peer), deque()).append(tamper(m, peer, number, message))

    for m in members:
        advance(m, None)
    while ready := [m for m, s in steps.items() if all(wires.get((p, m)) for p in s.expect)]:
        for m in ready:
            advance(m, {p: wires[p, m].popleft() for p in steps[m].expect})
    for m in steps:
        ends[m] = TimeoutError(f"member {m} waits for ever")
    return ends
