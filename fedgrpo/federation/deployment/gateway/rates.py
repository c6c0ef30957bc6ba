"""How often each may ask: a bucket of tokens a sender, refilled as time goes by."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedgrpo.federation.deployment.gateway.refused import RefusedError

MOST_SENDERS = 4096
"""As many are remembered, so that memory is bounded: the longest silent one is forgotten."""
MOST_SEEN = 100_000
"""Signatures that are remembered while they could serve again."""


@dataclass(frozen=True)
class Rate:
    """A limit.

    Attributes
    ----------
    a_second:
        In the long run.
    at_once:
        After a pause.
    """

    a_second: float
    at_once: float


class Rates:
    """Buckets of many senders.

    Parameters
    ----------
    rate:
        For each of them.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, sender: Hashable, now: float, much: float = 1, of: str = "requests") -> None:
        """Count a request; raises RefusedError if there were too many.

        Parameters
        ----------
        sender:
            Whose.
        now:
            Seconds on a clock that never goes back.
        much, of:
            What is counted.
        """
        left, last = self._buckets.pop(sender, (self._rate.at_once, now))
        left = min(self._rate.at_once, left + (now - last) * self._rate.a_second)
        allowed = left >= much
        self._buckets[sender] = (left - much if allowed else left, now)
        if len(self._buckets) > MOST_SENDERS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise RefusedError(
                429,
                f"more than {self._rate.a_second:g} {of} a second",
                cure="wait; one node a key",
            )


class InFlight:
    """Requests of each sender that are under way: what one can have in memory at once.

    Parameters
    ----------
    most:
        Of each.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[Hashable] = Counter()

    @contextmanager
    def one(self, sender: Hashable) -> Iterator[None]:
        """Count a request while it lasts; raises RefusedError if it is one too many."""
        if self._under_way[sender] >= self._most:
            raise RefusedError(429, f"more than {self._most} requests at once", cure="wait")
        self._under_way[sender] += 1
        try:
            yield
        finally:
            self._under_way[sender] -= 1
            self._under_way += Counter()  # Forgets those at zero.


class Once:
    """What was shown already, and may not be shown again within a while.

    Parameters
    ----------
    for_s:
        Seconds for which it is remembered. If more than ``MOST_SEEN`` come meanwhile, the oldest
        are forgotten sooner.
    """

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._seen: OrderedDict[Hashable, float] = OrderedDict()

    def show(self, what: Hashable, now: float) -> None:
        """Remember something; raises RefusedError if it was shown before."""
        while self._seen:
            oldest = next(iter(self._seen))
            if len(self._seen) <= MOST_SEEN and self._seen[oldest] > now - self._for_s:
                break
            del self._seen[oldest]
        if what in self._seen:
            raise RefusedError(401, "this request was sent before", cure="sign each request anew")
        self._seen[what] = now
