"""What a node keeps between the messages of a round, in Flower's per-run context.

A deployed node handles each message in a fresh process, so everything lives in ``context.state``,
which stays on the node. The release and the mask secrets of a round are gone as soon as they have
served, or when the next round begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.records import array, array_record, config_record, scalar
from fedgrpo.ground.errors import AdapterError, ProtocolError, SettingsError, TurnError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.secure.committee.keys.identity import MemberKeys
from fedgrpo.secure.masking import MaskingClient

_PINS, _MASKS, _RELEASE = "fedgrpo.pins", "fedgrpo.masks", "fedgrpo.release"
_PLAN, _SIGNING, _PINNED = "fedgrpo.plan", "fedgrpo.signing", "fedgrpo.committee"

WORK = "fedgrpo.work"
"""What the names of a committee member's records of one round begin with."""


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
            self._check_pins(_pins_of(adapter))

    def begin_round(self, round: int, adapter: AdapterState) -> None:
        """Open a round, once, and forget what is left of the one before.

        Recorded before anything is charged or computed: whatever becomes of the round, it cannot be
        asked for again. Parameters and errors are those of :meth:`check_turn`.
        """
        self.check_turn(round, adapter)
        self.forget_round()
        self.state[_PINS] = ConfigRecord({"round": round, **_pins_of(adapter)})

    def keep(self, release: NDArray[np.float64], bound: float, masks: MaskingClient) -> None:
        """Keep a round's release, float64, shape (size,), its bound, and the mask secrets."""
        self.state[_RELEASE] = ArrayRecord({"release": Array(release)})
        self.state[_MASKS] = ConfigRecord(
            {"client": masks.to_bytes(), "bound": bound, "members": 0}
        )

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
        self.state[_PLAN] = ConfigRecord(
            {
                "run": run,
                "settings": settings,
                "dimension": dimension,
                "norm": clipping_norm,
                "order": order,
            }
        )

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
        if (began := scalar(self._plan, "settings", str)) != settings:
            raise SettingsError(
                f"the settings changed in mid-round, from {began[:12]} to {settings[:12]}",
                cure="keep to one configuration within a run",
            )

    @property
    def run(self) -> str:
        """Name of the run; raises TurnError if no round is open."""
        return scalar(self._plan, "run", str)

    @property
    def plan(self) -> tuple[int, float]:
        """Dimension and clipping norm of the round; raises TurnError if there is none."""
        return scalar(self._plan, "dimension", int), scalar(self._plan, "norm", float)

    @property
    def _plan(self) -> ConfigRecord:
        if _PLAN not in self.state:
            raise TurnError("no round is open", cure="have the node train first")
        return config_record(self.state, _PLAN)

    @property
    def order(self) -> bytes:
        """Digest of the round's order; raises TurnError if there is none."""
        return scalar(self._plan, "order", bytes)

    def keep_dealing(self, release: NDArray[np.float64], signing: bytes) -> None:
        """Keep a round's release, and the private key that signs how it is dealt, 32 bytes."""
        self.state[_RELEASE] = ArrayRecord({"release": Array(release)})
        self.state[_SIGNING] = ConfigRecord({"key": signing})

    def take_signing(self) -> bytes:
        """Return the round's signing key, once; raises ProtocolError if there is none."""
        key = scalar(config_record(self.state, _SIGNING), "key", bytes)
        del self.state[_SIGNING]
        return key

    def pin_committee(self, members: tuple[MemberKeys, ...]) -> None:
        """Accept a committee that no settings list: the same for a whole run.

        Raises
        ------
        ProtocolError
            If it is another one.
        """
        keys = b"".join(key.signing + key.agreement for key in members)
        before = keys
        if _PINNED in self.state:
            before = scalar(config_record(self.state, _PINNED), "keys", bytes)
        if before != keys:
            raise ProtocolError(
                "the server names another committee than earlier in this run",
                cure="list the members in aggregation.committee and start a new run",
            )
        self.state[_PINNED] = ConfigRecord({"keys": keys})

    @contextmanager
    def masks(self) -> Iterator[MaskingClient]:
        """Lend the round's masking client, and store what became of it whether the call succeeds or
        is refused.

        Raises
        ------
        ProtocolError
            If no round is open.
        """
        record = config_record(self.state, _MASKS)
        client = MaskingClient.from_bytes(scalar(record, "client", bytes))
        try:
            yield client
        finally:
            record["client"] = client.to_bytes()

    @property
    def bound(self) -> float:
        """Largest absolute value of a coordinate of the release."""
        return scalar(config_record(self.state, _MASKS), "bound", float)

    @property
    def members(self) -> int:
        """Members of the roster that this node accepted; 0 before."""
        return scalar(config_record(self.state, _MASKS), "members", int)

    @members.setter
    def members(self, count: int) -> None:
        config_record(self.state, _MASKS)["members"] = count

    def take_release(self) -> NDArray[np.float64]:
        """Return the round's release, once.

        Raises
        ------
        ProtocolError
            If it was taken or there is none.
        """
        release: NDArray[np.float64] = array(
            array_record(self.state, _RELEASE), "release", "float64"
        )
        del self.state[_RELEASE]
        return release

    def forget_round(self) -> None:
        """Wipe release and secrets."""
        for name in (_RELEASE, _MASKS, _SIGNING, _PLAN):
            if name in self.state:
                del self.state[name]
        for name in [name for name in self.state if name.startswith(WORK)]:
            del self.state[name]

    @property
    def round(self) -> int:
        """The round that is open, or the last one; 0 before the first."""
        return scalar(config_record(self.state, _PINS), "round", int) if _PINS in self.state else 0

    def _check_pins(self, pins: dict[str, str]) -> None:
        record = config_record(self.state, _PINS)
        for name, value in pins.items():
            if (before := scalar(record, name, str)) != value:
                raise AdapterError(
                    f"the adapter's {name} changed within the run, "
                    f"from {before[:12]} to {value[:12]}",
                    cure="send the same frozen tensors in every round, or start a new run",
                )


def _pins_of(adapter: AdapterState) -> dict[str, str]:
    """What stays the same for a whole run."""
    return {"layout": adapter.layout, "basis": adapter.basis_hash}
