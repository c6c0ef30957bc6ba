"""What a node keeps between the messages of a round, in Flower's per-run context.

A deployed node handles each message in a fresh process, so everything lives in ``context.state``,
which stays on the node: here what every protocol needs, and in the protocols' folders what one of
them keeps besides, under names that begin with :data:`ROUND`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.codec import drop, put, take
from fedgrpo.ground.errors import AdapterError, SettingsError, TurnError
from fedgrpo.model.adapter import AdapterState

ROUND = "fedgrpo.round."
"""What the names of all records begin with that are forgotten with their round."""
RELEASE = f"{ROUND}release"
"""Record of a release that has not left yet."""

_PINS, _PLAN = "fedgrpo.pins", f"{ROUND}plan"


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
    radius: float
    order: bytes


@dataclass(frozen=True)
class _Release:
    """A round's release, float64, shape (size,)."""

    vector: NDArray[np.float64]


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
        put(self.state, _Pins(round, adapter.layout, adapter.basis_hash), _PINS)

    def keep_release(self, release: NDArray[np.float64]) -> None:
        """Keep the round's release, float64, shape (size,), until a later message takes it."""
        put(self.state, _Release(release), RELEASE)

    def keep_plan(
        self, run: str, settings: str, shape: tuple[int, float, float], order: bytes
    ) -> None:
        """Keep the run's name and what a round's plan follows from, for later stages.

        Parameters
        ----------
        run:
            Its name.
        settings:
            Their fingerprint.
        shape:
            Dimension, clipping norm and radius of the round's plan.
        order:
            Digest of what all nodes were ordered to compute, see
            :func:`fedgrpo.federation.wire.plans.order_digest`.
        """
        put(self.state, _Plan(run, settings, *shape, order), _PLAN)

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
    def plan(self) -> tuple[int, float, float]:
        """Dimension, clipping norm and radius of the round; raises TurnError if there is none."""
        return self._plan.dimension, self._plan.clipping_norm, self._plan.radius

    @property
    def _plan(self) -> _Plan:
        if _PLAN not in self.state:
            raise TurnError("no round is open", cure="have the node train first")
        return take(_Plan, self.state, _PLAN)

    @property
    def order(self) -> bytes:
        """Digest of the round's order; raises TurnError if there is none."""
        return self._plan.order

    def take_release(self) -> NDArray[np.float64]:
        """Return the round's release, once.

        Raises
        ------
        ProtocolError
            If it was taken or there is none.
        """
        release = take(_Release, self.state, RELEASE).vector
        drop(self.state, RELEASE)
        return release

    def forget_round(self) -> None:
        """Wipe release and secrets."""
        for name in [name for name in self.state if name.startswith(ROUND)]:
            del self.state[name]

    @property
    def round(self) -> int:
        """The round that is open, or the last one; 0 before the first."""
        return take(_Pins, self.state, _PINS).round if _PINS in self.state else 0

    def _check_pins(self, adapter: AdapterState) -> None:
        pins = take(_Pins, self.state, _PINS)
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
