"""What the process of a message and the model process say to each other over a Unix socket.

Both belong to the same user, and the socket lies in a folder that nobody else can enter. What
crosses is dataclasses in the house's own form: arrays and scalars, and nothing that is run.

Adversary: other users of the machine, where a folder was cleaned away and made by one of them; and
a process that says nonsense, which counts as one that has ended.
"""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.codec import Digest
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.ground.kept import pack, unpack
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import Declared
from fedgrpo.site.refusals import Refusal

_HEAD, _LONGEST_HEAD = re.compile(rb"([A-Za-z]+) (\d{1,12})\n"), 80
_LEAST_S = 1e-3
"""A connection that may take no time at all would not block, and so look broken."""


class GoneError(ConnectionError):
    """The other process has ended, does not go on with this connection, or says nonsense."""


@dataclass(frozen=True)
class Hello:
    """What the process must have loaded to be of use: see :func:`.identity.identity_of`."""

    identity: Digest


@dataclass(frozen=True)
class Here:
    """The model process's answer, if it is of use."""

    pid: int


@dataclass(frozen=True)
class Prepare:
    """See :class:`fedgrpo.federation.node.clients.interfaces.PreparingFactory`."""

    settings: str
    """JSON of the flat run configuration."""
    node_config: str
    """JSON."""
    adapter: AdapterState
    declared: Declared

    @classmethod
    def of(
        cls,
        settings: Settings,
        node_config: Mapping[str, Scalar],
        adapter: AdapterState,
        declared: Declared,
    ) -> Prepare:
        """Write down what a factory is asked."""
        flat = json.dumps(settings.to_run_config())
        return cls(flat, json.dumps(dict(node_config)), adapter, declared)

    def read(self) -> tuple[Settings, dict[str, Scalar]]:
        """Settings and node configuration."""
        return Settings.from_run_config(json.loads(self.settings)), json.loads(self.node_config)


@dataclass(frozen=True)
class Sized:
    """What the order can cost."""

    seconds: float
    """At most, with everything loaded."""
    loading_s: float
    """Seconds that the process took to start and to load everything."""


@dataclass(frozen=True)
class Contribute:
    """See :class:`fedgrpo.federation.node.clients.interfaces.Client`."""

    adapter: AdapterState
    plan: str
    """JSON of the :class:`ReleasePlan`."""
    round: int
    key: bytes
    watched: str
    """SHA-256 (hex) of everything that decides the release."""
    left_s: float
    """Until the deadline."""

    @classmethod
    def of(
        cls,
        adapter: AdapterState,
        plan: ReleasePlan,
        round: int,
        key: bytes,
        watched: str,
        left_s: float,
    ) -> Contribute:
        """Write down what a client is asked."""
        return cls(adapter, json.dumps(asdict(plan)), round, key, watched, left_s)

    def read_plan(self) -> ReleasePlan:
        """How the contribution is normalised, clipped and noised."""
        return ReleasePlan(**json.loads(self.plan))


@dataclass(frozen=True)
class Contributed:
    """A release, float64, shape (size,), and what went wrong on the way, for the site's people."""

    release: NDArray[np.float64]
    mishaps: Mapping[str, int]


@dataclass(frozen=True)
class Failed:
    """What came of an order that failed: nothing of it but the code may leave the node."""

    code: Refusal
    kind: str
    """Class of the error, for the site's people: its text is in the log of who raised it."""
    mishaps: Mapping[str, int]


_KINDS = {kind.__name__: kind for kind in (Hello, Here, Prepare, Sized, Contribute)} | {
    kind.__name__: kind for kind in (Contributed, Failed)
}


class Line:
    """One connection, on which one side asks and the other answers."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._in = connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell the other side that this one is done."""
        self._in.close()
        self.connection.close()

    def allow(self, seconds: float) -> None:
        """Let what is said and heard take so long; infinity takes any time."""
        self.connection.settimeout(None if math.isinf(seconds) else max(_LEAST_S, seconds))

    def say(self, value: object) -> None:
        """Send a dataclass of :mod:`this module <.line>`; raises GoneError or TimeoutError."""
        data = pack(value)
        head = f"{type(value).__name__} {len(data)}\n".encode()
        try:
            self.connection.sendall(head + data)
        except TimeoutError:
            raise
        except OSError as error:
            raise GoneError from error

    def hear(self, *kinds: type) -> Any:
        """Receive one of these dataclasses.

        Raises
        ------
        GoneError
            If the other side is gone, in the middle of a word or before it, or something else came.
        TimeoutError
            If the connection has a time limit, and it is over.
        """
        try:
            head = _HEAD.fullmatch(self._in.readline(_LONGEST_HEAD))
            data = self._in.read(int(head[2])) if head else b""
        except TimeoutError:
            raise
        except (OSError, ValueError, MemoryError) as error:
            raise GoneError from error
        if head is None or len(data) < int(head[2]):
            raise GoneError("the other process has broken off")
        kind = _KINDS.get(head[1].decode())
        if kind is None or kind not in kinds:
            raise GoneError(f"{head[1]!r} was said out of turn")
        try:
            return unpack(kind, data)
        except ProtocolError as error:
            raise GoneError from error
