"""What server, clients and members of the committee derive alike from settings and a round."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import CohortError, ProtocolError, SettingsError
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.robust.norm_checked import inside
from fedgrpo.secure.committee import (
    Committee,
    Encoding,
    MemberKeys,
    Plan,
    choose_circuit,
    decode_sum,
    encode,
    portions_of,
    slice_planes,
    widest_step,
)
from fedgrpo.secure.committee.compute.planes import Words
from fedgrpo.settings import Settings

KEYS_BYTES = 64
"""A member's two public keys, one after the other."""
RULES = {"trimmed_mean": "trimmed_mean", "median": "median", "norm_checked": "norm_checked_mean"}
"""Rules of the settings that a committee can compute, by their names there."""

_LEAST_BITS, _MOST_BITS = 16, 24
_ROUNDING = 0.02
"""Share of one prompt's sensitivity that rounding may add to it."""
_RELAYED_S, _DIRECT_S = 1.0, 0.05
"""Seconds for which a message is on its way, assumed in the choice of a circuit."""


def listed_members(settings: Settings) -> dict[MemberKeys, str]:
    """Return the members that the settings list, in order, and the address of each, or an empty
    text; none where the nodes of a simulation are drawn.
    """
    named = (name.partition("@") for name in settings.aggregation.committee)
    return {read_keys(bytes.fromhex(keys)): address for keys, _, address in named}


def check_listed(settings: Settings, members: tuple[MemberKeys, ...]) -> None:
    """Refuse a seating of others than listed members, or in another order than the list's.

    Raises
    ------
    ProtocolError
        If it is one.
    """
    chosen = set(members)
    if members != tuple(keys for keys in listed_members(settings) if keys in chosen):
        raise ProtocolError(
            "the server seats another committee than the settings list",
            cure="seat four of aggregation.committee, in its order",
        )


def read_keys(data: bytes) -> MemberKeys:
    """Split :data:`KEYS_BYTES` bytes into a member's two public keys."""
    return MemberKeys(signing=data[: KEYS_BYTES // 2], agreement=data[KEYS_BYTES // 2 :])


def write_keys(keys: MemberKeys) -> bytes:
    """Invert :func:`read_keys`."""
    return keys.signing + keys.agreement


def committee_of(settings: Settings, members: tuple[MemberKeys, ...]) -> Committee:
    """Describe a committee, bound to the settings and the version that all must share.

    Raises
    ------
    ProtocolError
        If these are not four members with distinct keys.
    """
    shared = hashlib.sha256(f"{settings.fingerprint()}|{VERSION}".encode()).digest()
    addresses = listed_members(settings)
    return Committee(members, tuple(addresses.get(keys, "") for keys in members), shared)


def seating_of(settings: Settings, members: tuple[MemberKeys, ...]) -> str:
    """Name four members under these settings, 64 hex digits; raises ProtocolError as above."""
    return committee_of(settings, members).digest.hex()


def is_direct(settings: Settings) -> bool:
    """Whether the members connect to each other, and not through the server."""
    addresses = listed_members(settings).values()
    return bool(addresses) and all(addresses)


def dealing_session(
    committee: Committee, run: str, round: int, clients: Mapping[int, bytes], order: bytes
) -> bytes:
    """Name a round's dealing: run, round, who deals under which signing key, and what all computed.

    A dealer signs it, and a member admits only what is signed under its own: whoever was ordered to
    compute something else than the members is left out.

    Parameters
    ----------
    committee, run, round:
        Whose dealing it is.
    clients:
        Signing key by client, 32 bytes each.
    order:
        See :func:`fedgrpo.federation.wire.plans.order_digest`.
    """
    roster = b"".join(b"%d|" % client + clients[client] for client in sorted(clients))
    return committee.session(run, round, hashlib.sha256(order + roster).digest())


_LONGER = ContextVar("coordinates that are left out of the rounds that are played", default=0)


@contextmanager
def shortened(by: int) -> Iterator[None]:
    """Play rounds over vectors that are so many coordinates shorter, with the bits, the noise's
    width and the circuit of the whole ones. For forecasts: no such noise protects anything.
    """
    before = _LONGER.set(by)
    try:
        yield
    finally:
        _LONGER.reset(before)


def _whole(release: ReleasePlan) -> ReleasePlan:
    return replace(release, dimension=release.dimension + _LONGER.get())


def encoding_of(release: ReleasePlan) -> Encoding:
    """Return how a release becomes integers.

    A release has norm 1 at most, but for one of more prompts than expected that all pull the same
    way: that one is projected onto the ball of norm 1. For prompts, as many bits are taken as keep
    what rounding adds to one prompt's say below :data:`_ROUNDING`, see :func:`noise_steps`.
    """
    return Encoding(1.0, release.size, _bits(_whole(release)))


def _bits(release: ReleasePlan) -> int:
    if release.unit != "prompt":
        return _LEAST_BITS
    # The step at 2 bits times sqrt(size), over one prompt's say, is what 2^(2 - bits) shrinks.
    coarse = Encoding(1.0, release.size, _LEAST_BITS).step * math.sqrt(release.size)
    extra = math.log2(coarse * release.expected_prompts / _ROUNDING)
    return min(_MOST_BITS, _LEAST_BITS + max(0, math.ceil(extra)))


def noise_steps(settings: Settings, release: ReleasePlan) -> float:
    """Return the scale of the joint noise in steps of the encoding; 0 without a unit.

    Proof: with n and k fixed, the opened sum of kept values moves by no more, in L2, than the one
    encoded vector that changes (:class:`fedgrpo.secure.committee.Plan`). Client: a vector is
    zeroed, and no encoded one is longer than ``Encoding.sensitivity`` steps. Prompt: the release
    moves by at most 1/B; projection onto a ball and saturation are 1-Lipschitz, and rounding moves
    each of both vectors by at most half a step in each coordinate, so the encoded one moves by at
    most ``1/B / step + sqrt(size)`` steps. Noise of z times that is the Gaussian mechanism with
    noise multiplier z; what remains towards a curious member is said in
    :func:`fedgrpo.secure.committee.effective_noise`.

    Adversary: whoever sees what is opened. Nobody sees a sum without noise.
    """
    if release.unit == "none":
        return 0.0
    release = _whole(release)
    encoding = Encoding(1.0, release.size, _bits(release))
    moved = float(encoding.sensitivity)
    if release.unit == "prompt":
        moved = 1 / (release.expected_prompts * encoding.step) + math.sqrt(release.size)
    return settings.privacy.noise_multiplier * moved


def committee_plan(settings: Settings, release: ReleasePlan, clients: int) -> Plan:
    """Return what the committee computes over so many clients.

    Raises
    ------
    CohortError
        If there are fewer than ``2 robust.trim + 3``.
    SettingsError
        If it does not serve the rule.
    """
    if settings.robust.rule not in RULES:
        raise SettingsError(
            f"robust.rule = {settings.robust.rule!r} is no rule of the committee",
            cure=f"choose from {', '.join(RULES)}",
        )
    if clients < 1:
        raise CohortError("no client is left for the committee", cure="see the nodes' own logs")
    whole, latency = _whole(release), _DIRECT_S if is_direct(settings) else _RELAYED_S
    encoding = Encoding(1.0, whole.size, _bits(whole))
    # Over a shorter vector, a shorter norm is checked to the same bit.
    norm = (release.radius or 1.0) * math.sqrt(release.size / whole.size)
    plan = Plan(
        clients=clients,
        dimension=release.size,
        rule=RULES[settings.robust.rule],
        trim=settings.robust.trim,
        bits=encoding.bits,
        sigma=noise_steps(settings, release),
        norm=math.ceil(norm / encoding.step),
        figures=release.size - release.dimension if release.radius else 0,
        figures_norm=math.ceil(release.figures_norm / encoding.step),
    )
    circuit = choose_circuit(plan.groups, plan.trimmed, whole.size, latency, plan.bits)
    chosen = replace(plan, circuit=circuit)
    return replace(chosen, portions=portions_of(widest_step(chosen), whole.size))


def payload_of(vector: NDArray[np.float64], release: ReleasePlan) -> Words:
    """Encode a release as a client deals it: uint64, shape (plan.words,).

    Where norms are checked, the vector lies within the round's balls after rounding, too: what
    rounding can add in L2 is kept free, ``step sqrt(d) / 2`` for d coordinates.
    """
    encoding, d = encoding_of(release), release.dimension
    if release.radius:
        slack, rest = (encoding.step * math.sqrt(k) / 2 for k in (d, release.size - d))
        within = (max(0.0, release.radius - slack), max(0.0, release.figures_norm - rest))
        vector = inside(vector, d, *within)
    norm = float(np.linalg.norm(vector))
    shorter = vector / norm if norm > 1 else vector
    return slice_planes(encode(shorter, encoding).astype(np.int64), encoding.bits).reshape(-1)


def mean_of(totals: Words, plan: Plan, release: ReleasePlan) -> NDArray[np.float64]:
    """Decode what was opened to the mean of the kept values; float64, shape (size,)."""
    opened = decode_sum(totals, plan.kept, plan.output_bits, encoding_of(release))
    return np.asarray(opened / plan.kept)
