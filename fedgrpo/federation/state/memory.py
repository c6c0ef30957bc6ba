"""What a node keeps between the messages of a round, in Flower's per-run context.

A deployed node handles each message in a fresh process, so everything lives in ``context.state``,
which stays on the node. The release and the mask secrets of a round are gone as soon as they have
served, or when the next round begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.codec import drop, put, take
from fedgrpo.ground.codec import Key
from fedgrpo.ground.errors import AdapterError, ProtocolError, SettingsError, TurnError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.secure.committee.keys.identity import MemberKeys
from fedgrpo.secure.masking import MaskingClient

WORK = "fedgrpo.work"
"""What the names of a committee member's records of one round begin with."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Pins:
    """The last round that was begun, and what stays the same for a whole run."""

    round: int
    layout: str
    basis: str


@dataclass(frozen=True)
class _Plan:
    """What a round's plan follows from, see :meth:`NodeMemory.keep_plan`."""

    run: str
    settings: str
    dimension: int
    clipping_norm: float
    order: bytes


@dataclass(frozen=True)
class _Release:
    """A round's release, float64, shape (size,)."""

    vector: NDArray[np.float64]


@dataclass(frozen=True)
class _Masks:
    """The mask secrets of a round, the bound of its release, and the size of its roster."""

    client: bytes
    bound: float
    members: int = 0


@dataclass(frozen=True)
class _Signing:
    """The private key that signs how a release is dealt."""

    key: Key


@dataclass(frozen=True)
class _Committee:
    """The members with whom a run began that lists none."""

    members: tuple[MemberKeys, ...]


@dataclass
class NodeMemory:
    """A view of one node's state in one run."""

    state: RecordDict

    def check_turn(self, round: int, adapter: AdapterState) -> None:
        """Refuse a round that this node must not open.

        Parameters
        ----------
        round:
            Must be above every earlier one.
        adapter:
            Must have the layout and the frozen basis that the run began with. A server that could
            change the basis could choose it after seeing releases, and point it at what it wants to
            learn.

        Raises
        ------
        TurnError
            If the round is not new.
        AdapterError
            If layout or basis changed.
        """
        last = self.round
        if round <= last:
            raise TurnError(
                f"round {round} is not after round {last}, which this node has begun already",
                cure="a repeated round needs a new run",
            )
        if last:
            self._check_pins(adapter)

    def begin_round(self, round: int, adapter: AdapterState) -> None:
        """Open a round, once, and forget what is left of the one before.

        Recorded before anything is charged or computed: whatever becomes of the round, it cannot be
        asked for again. Parameters and errors are those of :meth:`check_turn`.
        """
        self.check_turn(round, adapter)
        self.forget_round()
        put(self.state, _Pins(round, adapter.layout, adapter.basis_hash))

    def keep(self, release: NDArray[np.float64], bound: float, masks: MaskingClient) -> None:
        """Keep a round's release, float64, shape (size,), its bound, and the mask secrets."""
        put(self.state, _Release(release))
        put(self.state, _Masks(masks.to_bytes(), bound))

    def keep_plan(
        self, run: str, settings: str, dimension: int, clipping_norm: float, order: bytes
    ) -> None:
        """Keep the run's name and what a round's plan follows from, for later stages.

        Parameters
        ----------
        run:
            Its name.
        settings:
            Their fingerprint.
        dimension, clipping_norm:
            Of the round's plan.
        order:
            Digest of what all nodes were ordered to compute, see
            :func:`fedgrpo.federation.wire.plans.order_digest`.
        """
        put(self.state, _Plan(run, settings, dimension, clipping_norm, order))

    def check_settings(self, settings: str) -> None:
        """Refuse settings other than those that the round began with.

        Adversary: a server that has a node train under settings that its policy allows, and changes
        the run's configuration before the next message, to name another committee, say.

        Raises
        ------
        SettingsError
            If the fingerprint is another one.
        TurnError
            If no round is open.
        """
        if (began := self._plan.settings) != settings:
            raise SettingsError(
                f"the settings changed in mid-round, from {began[:12]} to {settings[:12]}",
                cure="keep to one configuration within a run",
            )

    @property
    def run(self) -> str:
        """Name of the run; raises TurnError if no round is open."""
        return self._plan.run

    @property
    def plan(self) -> tuple[int, float]:
        """Dimension and clipping norm of the round; raises TurnError if there is none."""
        return self._plan.dimension, self._plan.clipping_norm

    @property
    def _plan(self) -> _Plan:
        if (plan := self._find(_Plan)) is None:
            raise TurnError("no round is open", cure="have the node train first")
        return plan

    @property
    def order(self) -> bytes:
        """Digest of the round's order; raises TurnError if there is none."""
        return self._plan.order

    def keep_dealing(self, release: NDArray[np.float64], signing: bytes) -> None:
        """Keep a round's release, and the private key that signs how it is dealt, 32 bytes."""
        put(self.state, _Release(release))
        put(self.state, _Signing(signing))

    def take_signing(self) -> bytes:
        """Return the round's signing key, once; raises ProtocolError if there is none."""
        return self._pop(_Signing).key

    def pin_committee(self, members: tuple[MemberKeys, ...]) -> None:
        """Accept a committee that no settings list: the same for a whole run.

        Raises
        ------
        ProtocolError
            If it is another one.
        """
        named = _Committee(members)
        if (self._find(_Committee) or named) != named:
            raise ProtocolError(
                "the server names another committee than earlier in this run",
                cure="list the members in aggregation.committee and start a new run",
            )
        put(self.state, named)

    @contextmanager
    def masks(self) -> Iterator[MaskingClient]:
        """Lend the round's masking client, and store what became of it whether the call succeeds or
        is refused.

        Raises
        ------
        ProtocolError
            If no round is open.
        """
        client = MaskingClient.from_bytes(take(_Masks, self.state).client)
        try:
            yield client
        finally:
            put(self.state, replace(take(_Masks, self.state), client=client.to_bytes()))

    @property
    def bound(self) -> float:
        """Largest absolute value of a coordinate of the release."""
        return take(_Masks, self.state).bound

    @property
    def members(self) -> int:
        """Members of the roster that this node accepted; 0 before."""
        return take(_Masks, self.state).members

    @members.setter
    def members(self, count: int) -> None:
        put(self.state, replace(take(_Masks, self.state), members=count))

    def take_release(self) -> NDArray[np.float64]:
        """Return the round's release, once.

        Raises
        ------
        ProtocolError
            If it was taken or there is none.
        """
        return self._pop(_Release).vector

    def forget_round(self) -> None:
        """Wipe release and secrets."""
        for kind in (_Release, _Masks, _Signing, _Plan):
            drop(self.state, kind.__name__)
        for name in [name for name in self.state if name.startswith(WORK)]:
            del self.state[name]

    @property
    def round(self) -> int:
        """The round that is open, or the last one; 0 before the first."""
        pins = self._find(_Pins)
        return pins.round if pins else 0

    def _check_pins(self, adapter: AdapterState) -> None:
        pins = take(_Pins, self.state)
        for name, before, now in (
            ("layout", pins.layout, adapter.layout),
            ("basis", pins.basis, adapter.basis_hash),
        ):
            if before != now:
                raise AdapterError(
                    f"the adapter's {name} changed within the run, "
                    f"from {before[:12]} to {now[:12]}",
                    cure="send the same frozen tensors in every round, or start a new run",
                )

    def _find(self, kind: type[T]) -> T | None:
        return take(kind, self.state) if kind.__name__ in self.state else None

    def _pop(self, kind: type[T]) -> T:
        kept = take(kind, self.state)
        drop(self.state, kind.__name__)
        return kept
