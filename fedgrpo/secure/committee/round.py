"""One member's part in one round: agree on it, compute on shares, confirm, and open once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.crypto import derive
from fedgrpo.ground.errors import OpenedError, ProtocolError
from fedgrpo.secure.committee.compute.circuits.adders import columns_of
from fedgrpo.secure.committee.compute.circuits.buckets import sum_buckets
from fedgrpo.secure.committee.compute.circuits.norms import (
    blank_long_vectors,
    find_short_vectors,
)
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS
from fedgrpo.secure.committee.compute.engine import Engine, Share
from fedgrpo.secure.committee.compute.four_party import FourParty
from fedgrpo.secure.committee.compute.planes import (
    Words,
    join_planes,
    lane_mask,
    slice_planes,
    words_for,
)
from fedgrpo.secure.committee.keys.identity import ComponentKeys, context, keepers
from fedgrpo.secure.committee.keys.noise import discrete_gaussian, share_sigma
from fedgrpo.secure.committee.sharing.greeting import confirm, greet
from fedgrpo.secure.committee.steps import MEMBERS, Member


@dataclass(frozen=True)
class Opened:
    """What the committee opened for one plan: all that anyone learns."""

    totals: Words
    """uint64, shape (d,): the sum of the kept values, in offset binary, and the noise; modulo
    ``2**bits``."""
    kept: int
    """Clients' values in the sum: what the mean divides by."""
    bits: int
    """Width of the sum."""


def aggregate(
    index: int,
    keys: ComponentKeys,
    session: bytes,
    plans: Sequence[Plan],
    components: Mapping[int, Words],
    *,
    inputs: bytes | None = None,
) -> Member[tuple[Opened, ...]]:
    """Play one member's part in aggregating what the clients dealt.

    Greet, so that members with other settings, keys or rounds are found out; trim, sum and add
    noise on shares; confirm that nobody found anything wrong; only then open.

    Adversary: one member is malicious, and colludes with any clients. It learns the opened totals
    and nothing else, and they are right, or an honest member raises. Nobody opens before having
    heard from all others that their checks passed, so a tampered computation opens nothing. At the
    very end a malicious member can keep the others from hearing a result that it gets itself: they
    raise :class:`~fedgrpo.ground.errors.OpenedError`, and the round counts as released. Two
    colluding members learn every input.

    The noise of a round is a function of component keys, plans and inputs, no member's choice: the
    opened totals have joint noise ``sigma``, of which one curious member can subtract all but a
    share of ``sigma / 2`` (:func:`~fedgrpo.secure.committee.keys.noise.effective_noise`). Computing
    on the same inputs again opens the same totals, so nobody averages noise away by asking twice;
    and other inputs have independent noise.

    Parameters
    ----------
    index:
        The member, 0 to 3.
    keys:
        The member's component keys of the committee.
    session:
        32 bytes that name this use of the committee and bind its settings and the clients taken
        (:meth:`~fedgrpo.secure.committee.keys.identity.Committee.session`). Never use one twice:
        masks would serve twice, and differ in what a malicious member tampered with.
    plans:
        What to compute, one after the other: the update, and whatever goes the same way.
    components:
        ``{component: uint64, shape (clients, words)}`` for the member's three; a client's words are
        those of all plans, one after the other, each ``plan.bits`` planes
        (:func:`~fedgrpo.secure.committee.compute.planes.slice_planes`).
    inputs:
        32 bytes that differ whenever ``components`` do, at whichever member
        (:attr:`~fedgrpo.secure.committee.sharing.admission.Admitted.digest`): the noise is bound to
        them. None takes the session.

    Returns
    -------
    tuple[Opened, ...]
        One for each plan, the same at all members.

    Raises
    ------
    ProtocolError
        If a member's message is malformed or does not fit another's tag; the members that can have
        done it are named. Nothing was opened.
    OpenedError
        The same, but when this member had already sent its part of the opening.
    """
    _check_shapes(index, plans, components)
    drawn_for = bind(inputs or session, plans)
    noise_keys = keys.for_session(drawn_for)
    session = bind(session, plans)
    keys = keys.for_session(session)
    joint = yield from greet(index, keys, session, noise_keys, drawn_for)
    engine = FourParty(index, keys, session)
    totals, start = [], 0
    for section, plan in enumerate(plans):
        planes = {
            m: words[:, start : start + plan.words].reshape(plan.clients, plan.bits, -1)
            for m, words in components.items()
        }
        start += plan.words
        noise = _noise(index, noise_keys, drawn_for, section, plan, engine)
        totals.append((yield from _compute(engine, plan, engine.shared(planes), noise, joint)))
    yield from confirm(index, session)
    try:
        flat = yield from engine.open(np.concatenate([_flat(total) for total in totals], axis=1))
    except ProtocolError as error:
        raise OpenedError(
            f"the opening failed: {error.problem}",
            cure="count the round as released; " + error.cure,
        ) from error
    return tuple(_opened(plan, part) for plan, part in zip(plans, _split(flat, plans), strict=True))


def _compute(
    engine: Engine, plan: Plan, values: Share, noise: list[Share], joint: bytes
) -> Member[Share]:
    """Aggregate shares (held, n, w, W) by the plan, portion by portion; (held, output bits, W)."""
    short = None
    if plan.rule == "norm_checked_mean":
        short = yield from find_short_vectors(engine, values, plan)
    totals = []
    for words in plan.words_of():
        part = yield from blank_long_vectors(engine, values[..., words], short)
        drawn = [share[..., words] for share in noise]
        totals.append((yield from _trimmed_sum(engine, plan, part, drawn, joint)))
    return np.concatenate(totals, axis=-1) & lane_mask(plan.dimension)


def _trimmed_sum(
    engine: Engine, plan: Plan, values: Share, noise: list[Share], joint: bytes
) -> Member[Share]:
    circuit = CIRCUITS[plan.circuit]
    if plan.bucket > 1:
        values = yield from sum_buckets(engine, values, plan, joint)
    kept = yield from circuit.keep(engine, values, plan.trimmed)
    return (yield from circuit.add(engine, columns_of([*kept, *noise], plan.output_bits)))


def _noise(
    index: int, keys: ComponentKeys, session: bytes, section: int, plan: Plan, engine: Engine
) -> list[Share]:
    """Share the four parts of the joint noise; part m is component m, from key m alone."""
    if not plan.sigma:
        return []
    zeros = np.zeros((plan.output_bits, words_for(plan.dimension)), np.uint64)
    parts = {
        m: slice_planes(draw_noise(m, keys, session, section, plan), plan.output_bits)
        for m in keepers(index)
    }
    return [
        engine.shared({m: parts[m] if m == part else zeros for m in parts})
        for part in range(MEMBERS)
    ]


def draw_noise(
    component: int, keys: ComponentKeys, session: bytes, section: int, plan: Plan
) -> NDArray[np.int64]:
    """Draw one of the four parts of a plan's joint noise; int64, shape (d,), in steps.

    Parameters
    ----------
    component:
        The part, which is that component of a shared value.
    keys, session:
        What the noise is drawn for, bound by :func:`bind`, and the keys of that.
    section:
        Place of the plan in the round.
    plan:
        With a positive ``sigma``.
    """
    key = derive(keys.keys[component], context(session, "noise", section, component))
    return discrete_gaussian(key, share_sigma(plan.sigma), plan.dimension)


def bind(session: bytes, plans: Sequence[Plan]) -> bytes:
    """Bind a session to what is computed in it; 32 bytes, from which all keys are derived.

    Another plan in the same session then uses other masks, tags and noise.
    """
    return hashlib.sha256(session + repr(tuple(plans)).encode()).digest()


def _check_shapes(index: int, plans: Sequence[Plan], components: Mapping[int, Words]) -> None:
    expected = (plans[0].clients, sum(plan.words for plan in plans))
    shapes = {m: words.shape for m, words in components.items()}
    if shapes != dict.fromkeys(keepers(index), expected):
        raise ProtocolError(
            f"member {index} was given components of shapes {shapes}, the plans need {expected} "
            f"of each of {keepers(index)}",
            cure="make plan and dealing from the same settings and the clients that were admitted",
        )


def _flat(share: Share) -> Share:
    return share.reshape(len(share), -1)


def _split(flat: Words, plans: Sequence[Plan]) -> list[Words]:
    sizes = [plan.output_bits * words_for(plan.dimension) for plan in plans]
    return np.split(flat, np.cumsum(sizes)[:-1])


def _opened(plan: Plan, words: Words) -> Opened:
    planes = words.reshape(plan.output_bits, -1)
    return Opened(join_planes(planes, plan.dimension), plan.kept, plan.output_bits)
