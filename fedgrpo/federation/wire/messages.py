"""The messages of a round, written and read by :mod:`fedgrpo.federation.wire.codec`.

========  ==================================  ===========================================
stage     to each node                        back
========  ==================================  ===========================================
train     :class:`TrainOrder`                 its ephemeral :class:`PublicKeys
                                              <fedgrpo.secure.roster.PublicKeys>` (plain: its
                                              :class:`Unmasked`), a :class:`Tag`
share     the :class:`Roster                  :class:`Ciphertexts`, one for each peer
          <fedgrpo.secure.roster.Roster>` of
          its bucket
mask      the peers' :class:`Ciphertexts`     :class:`Masked`
unmask    :class:`UnmaskOrder`                :class:`Revealed
                                              <fedgrpo.secure.roster.Revealed>`
========  ==================================  ===========================================

Every message carries protocol, version, run and round. Reading refuses any of them that does not
fit. A node that does not do what a stage asks for answers with a :class:`Refused` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.codec import Header, check_size, decode, encode, pack, unpack
from fedgrpo.ground.codec import Digest, Name
from fedgrpo.ground.errors import AdapterError, BoundsError
from fedgrpo.model.adapter import AdapterState, check_values
from fedgrpo.site.refusals import Refusal

TRAIN, SHARE, MASK, UNMASK = "train", "query.share", "query.mask", "query.unmask"
"""Flower's types of the four messages."""


def _within_bounds(adapter: AdapterState) -> bool:
    """Constraint: values that training can make; raises BoundsError where they are not."""
    try:
        check_values(adapter.vector, adapter.basis)
    except AdapterError as error:
        raise BoundsError(error.problem, cure=error.cure) from None
    return True


def _is_finite(values: NDArray[np.floating]) -> bool:
    return bool(np.isfinite(values).all())


@dataclass(frozen=True)
class TrainOrder:
    """The server's order to train one round.

    Attributes
    ----------
    run:
        Name of the run, which stays when Flower's run id changes in a resume.
    adapter:
        The global adapter.
    clipping_norm:
        L2 norm C of this round. Everything else about the release follows from the settings on the
        node.
    fingerprint:
        Of the settings, which must be the node's too.
    radius:
        Of the ball that norms are checked against, see :func:`.plans.release_plan`; 0 for none.
    """

    header: Header
    run: Name
    adapter: Annotated[AdapterState, _within_bounds]
    clipping_norm: float
    fingerprint: str
    radius: float = 0.0


@dataclass(frozen=True)
class KeptBasis:
    """In an order, in the place of the adapter's frozen tensors: for a node that has kept them. In
    an answer: that it has.
    """

    hash: Digest


@dataclass(frozen=True)
class Tag:
    """What a node says of its release besides.

    Attributes
    ----------
    name:
        Its pseudonym in this run.
    commitment:
        Salted, to its release.
    """

    name: Name
    commitment: Digest


@dataclass(frozen=True)
class Unmasked:
    """A release as it is, float32, shape (size,), for a server that is trusted with it."""

    vector: Annotated[NDArray[np.float32], _is_finite]


@dataclass(frozen=True)
class Ciphertexts:
    """Encrypted shares by node: by recipient on their way in, by sender on their way out."""

    by_node: Mapping[int, bytes]


@dataclass(frozen=True)
class Masked:
    """A masked vector, uint32, shape (size,)."""

    vector: NDArray[np.uint32]


@dataclass(frozen=True)
class UnmaskOrder:
    """The server's question which masks to take off."""

    bucket: int
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class Refused:
    """That the node does not do what was asked: a fixed code and nothing else."""

    code: Refusal


def write_order(order: TrainOrder, *, kept: bool) -> RecordDict:
    """Write an order, for a node that has kept the frozen tensors or for one that has not."""
    if not kept:
        return encode(order.header, order)
    bare = replace(order, adapter=replace(order.adapter, basis={}))
    return encode(order.header, bare, KeptBasis(order.adapter.basis_hash))


def read_kept_basis(content: RecordDict) -> str:
    """Hash of frozen tensors that a node has; empty where it says nothing of any. Raises
    ProtocolError if it cannot be read.
    """
    return decode(KeptBasis, content).hash if KeptBasis.__name__ in content else ""


def read_release(content: RecordDict, size: int) -> NDArray[np.float32]:
    """Read a release; raises ProtocolError unless it is finite float32 of shape (size,)."""
    release = decode(Unmasked, content).vector
    check_size(release, size)
    return release


def read_refusal(content: RecordDict) -> Refusal | None:
    """Read a refusal's code, None if the content is none; raises ProtocolError."""
    return decode(Refused, content).code if Refused.__name__ in content else None


def write_adapter(adapter: AdapterState) -> ArrayRecord:
    """Write an adapter as Flower's strategies hand it on."""
    return pack(adapter)


def read_adapter(record: ArrayRecord) -> AdapterState:
    """Read an adapter.

    Raises
    ------
    ProtocolError
        If its vector is missing or not float32, or its layout is no hash.
    BoundsError
        If the vector is not of one dimension, or any value is not finite float32 within
        :data:`fedgrpo.model.adapter.LARGEST`.
    """
    adapter = unpack(AdapterState, record)
    _within_bounds(adapter)
    return adapter
