"""What a robust rule is, how it is found, called and checked; the rules lie beside this file.

One attacker spoils at most its own bucket, or itself where there are none, so ``trim`` of the
vectors that a rule combines may be anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import CohortError, PrivacyError, ProtocolError, SettingsError
from fedgrpo.ground.parts import Registry
from fedgrpo.ground.parts.names import part_name

Vectors = NDArray[np.float64]
Combination = Callable[..., Vectors]
"""``(bucket_means (B, d), trim, **options) -> (d,)``; of rules over whole vectors, ``(bucket_means,
trim, public, **options)``.
"""

_BLOCK = 12_288
"""Coordinates combined at a time by coordinate-wise rules: 96 kB a bucket, to fit the cache."""


@dataclass(frozen=True)
class Public:
    """What a rule over whole vectors may know beside them; all of it is public.

    Attributes
    ----------
    update:
        Leading coordinates that are the update. What follows are metrics and the clipping
        indicator, which distances leave out: they can outweigh it.
    last:
        float64, shape (update,): the last released aggregate in this round's units; None before
        there is one.
    radius, figures_radius:
        L2 norms of the balls in which honest updates, and the figures after them, lie.
    single:
        Whether each vector is a single client's.
    """

    update: int
    last: Vectors | None = None
    radius: float = math.inf
    figures_radius: float = math.inf
    single: bool = True


@dataclass(frozen=True)
class Rule:
    """A robust rule, with the defaults of one that declares nothing; see :func:`declare_rule`."""

    combination: Combination
    robust: bool = True
    trimmed: Callable[[int, int], int] | None = None
    whole: bool = False
    history: bool = False
    words: Callable[..., str] | None = None


RULES: Registry[Rule] = Registry("robust.rule", kind=Rule)
Combined = TypeVar("Combined", bound=Combination)


def declare_rule(
    *,
    robust: bool = True,
    trimmed: Callable[[int, int], int] | None = None,
    whole: bool = False,
    history: bool = False,
    words: Callable[..., str] | None = None,
) -> Callable[[Combined], Combined]:
    """Say of the decorated rule what settings that name it with its file must know.

    Parameters
    ----------
    robust:
        Whether it claims to withstand ``trim`` bad buckets. Then it is never called with fewer than
        ``2 * trim + 1``, with which no rule can.
    trimmed:
        For rules that average the middle order statistics of each coordinate: ``(buckets, trim) ->
        k``, how many are dropped at either end. It is what :func:`sensitivity` is proved for; leave
        it out for any other rule.
    whole:
        Whether it looks at whole vectors. Then it is given all coordinates at once, the vectors in
        an order that follows from their values, and :class:`Public`.
    history:
        Whether it uses ``Public.last``, which the server then keeps.
    words:
        ``(buckets, trim, **options) -> text``: what it did beyond its name, for summaries.
    """
    declared = Rule(_nothing, robust, trimmed, whole, history, words)

    def add(combination: Combined) -> Combined:
        RULES.declare(combination, replace(declared, combination=combination))
        return combination

    return add


def register_rule(name: str, **declared: Any) -> Callable[[Combined], Combined]:
    """Declare the decorated rule (:func:`declare_rule`), and add it under a name.

    Raises
    ------
    SettingsError
        If the name is taken.
    """

    def add(combination: Combined) -> Combined:
        RULES.register(name)(Rule(combination, **declared))
        return declare_rule(**declared)(combination)

    return add


def _nothing(*_: object) -> Vectors:
    raise NotImplementedError


def describe(rule: str, buckets: int, trim: int, clients: int, momentum: float = 0.0) -> str:
    """Say what a rule did: its name, of how many vectors, what it left out, and whether each is a
    client's mean over rounds.

    Parameters
    ----------
    clients:
        Whose releases these vectors are: as many where each is one client's.
    momentum:
        Decay of each client's mean over rounds; 0 without.
    """
    name = part_name(rule).replace("_", " ")
    if not buckets:
        return f"{name}, never applied"
    chosen = RULES[rule]
    options = getattr(chosen.combination, "keywords", {})
    said = chosen.words(buckets, trim, **options) if chosen.words else ""
    vectors = "clients' updates" if buckets == clients else "group means"
    parts = [f"{name} of {buckets} {vectors}", *([said] if said else [])]
    return ", ".join([*parts, *([f"clients' momentum {momentum:g}"] if momentum else [])])


def combine(rule: str, bucket_means: Vectors, trim: int, public: Public | None = None) -> Vectors:
    """Combine bucket means by a registered rule.

    Parameters
    ----------
    rule:
        What ``robust.rule`` names: ``trimmed_mean``, ``median``, ``mean``, or another one.
    bucket_means:
        float64, shape (B, d), finite. Not changed.
    trim:
        Bad buckets to be withstood. The mean withstands none and does not look at it.
    public:
        For rules over whole vectors; None takes all coordinates for the update, and nothing else
        for known.

    Returns
    -------
    NDArray[np.float64]
        Shape (d,). For the built-in rules independent, to the last bit, of the order of the
        buckets.

    Raises
    ------
    SettingsError
        If the rule is unknown or ``trim`` is negative.
    CohortError
        If there are fewer than ``2 * trim + 1`` buckets, or none. Nothing is ever trimmed less
        instead.
    ProtocolError
        If a bucket mean is not finite, or the array or the rule's result has a wrong shape.
    """
    means = np.asarray(bucket_means, dtype=np.float64)
    if means.ndim != 2:
        raise ProtocolError(
            f"bucket means have shape {means.shape}, not (buckets, coordinates)",
            cure="stack one mean a bucket",
        )
    return combine_blocks(rule, [means], (len(means), means.shape[1]), trim, public)


def combine_blocks(
    rule: str,
    blocks: Iterable[Vectors],
    shape: tuple[int, int],
    trim: int,
    public: Public | None = None,
) -> Vectors:
    """Combine bucket means that come block by block; the result does not depend on the blocks.

    Rules that look at one coordinate at a time hold one block; others, and coordinate-wise ones
    that do not say what they trim, need all of them at once.

    Parameters
    ----------
    blocks:
        Consecutive coordinates of all bucket means, float64, shapes (B, c), finite, c summing up to
        d. They are taken up only once it is sure that there are buckets enough.
    shape:
        (B, d).
    rule, trim, public:
        As for :func:`combine`, whose results and errors these are.
    """
    chosen, (count, coordinates) = RULES[rule], shape
    _check_cohort(rule, chosen, count, trim)
    if chosen.whole:
        means = _gathered(blocks, shape)
        return _combine_whole(rule, chosen, means, trim, public or Public(coordinates))
    if not chosen.trimmed:
        blocks = [_gathered(blocks, shape)]
    combined, start = np.empty(coordinates), 0
    for block in blocks:
        # What was just checked is still in the cache when it is combined.
        size = _BLOCK if chosen.trimmed else max(coordinates, 1)
        for at in range(0, block.shape[1], size):
            piece = block[:, at : at + size]
            if not _all_finite(piece):
                raise _not_finite(block)
            result = chosen.combination(piece, trim)
            _check_shape(rule, result, piece)
            combined[start : start + piece.shape[1]] = result
            start += piece.shape[1]
    return combined


def _gathered(blocks: Iterable[Vectors], shape: tuple[int, int]) -> Vectors:
    """All blocks side by side; the block itself where there is one."""
    listed = iter(blocks)
    first = next(listed, np.empty((shape[0], 0)))
    if first.shape == shape:
        return first
    means, start = np.empty(shape), 0
    for block in chain([first], listed):
        means[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return means


def _combine_whole(rule: str, chosen: Rule, means: Vectors, trim: int, public: Public) -> Vectors:
    if not _all_finite(means):
        raise _not_finite(means)
    # Whose vector comes first depends on the network; what is combined must not, to the last bit.
    order = sorted(range(len(means)), key=lambda bucket: means[bucket].tobytes())
    result = chosen.combination(means[order], trim, public)
    _check_shape(rule, result, means)
    return result


def _check_shape(rule: str, result: Vectors, means: Vectors) -> None:
    if result.shape != means.shape[1:]:
        raise ProtocolError(
            f"robust rule {rule!r} returned shape {result.shape}, not {means.shape[1:]}",
            cure="return one number a coordinate",
        )


def sensitivity(rule: str, buckets: int, trim: int, smallest_bucket: int) -> float:
    r"""How far one client can move the combined vector in L2.

    The client's contribution has norm at most 1 and is replaced by zeros (zero-out adjacency);
    number and sizes s of buckets, B and ``trim`` are public and fixed. Then the distance is at most
    ``1 / (s (B - 2k))``, where k values are dropped at either end: ``trim`` by the trimmed mean,
    ``(B - 1) // 2`` by the median, 0 by the mean.

    Proof. The client is in one bucket, whose mean m_i (a vector) moves by at most 1/s in L2. Fix a
    coordinate and let m_i grow from a to b >= a there (else swap). Every order statistic is
    non-decreasing in every argument, so each m_(j) grows by some D_j >= 0, and the sum of all D_j
    is b - a, as the total grows by just that. The trimmed sum grows by the sum of some of the D_j:
    by between 0 and b - a. So in every coordinate, the trimmed sum moves by at most as much as m_i,
    hence in L2 too; the trimmed mean divides by B - 2k. QED. Other clients may be unbounded: an
    honest client's guarantee does not rest on attackers who clip. It is tight at B = 3, k = 1.

    A rule may first map each m_i by itself, as ``norm_checked`` does: its docstring has the proof
    that the map lengthens no difference between vectors of honest clients, which is all that is
    used of m_i here.

    Parameters
    ----------
    rule:
        A rule registered with ``trimmed``.
    buckets:
        B.
    trim:
        As for :func:`combine`.
    smallest_bucket:
        s, members that are averaged in the smallest bucket, at least 1.

    Returns
    -------
    float
        L2 distance for a contribution of norm 1: multiply by the clipping norm. For replacement
        instead of zeros, double it.

    Raises
    ------
    PrivacyError
        If nothing is proved for the rule, or ``smallest_bucket`` is below 1.
    SettingsError, CohortError
        As :func:`combine`.
    """
    chosen = RULES[rule]
    _check_cohort(rule, chosen, buckets, trim)
    if chosen.trimmed is None:
        raise PrivacyError(
            f"no sensitivity is proved for robust rule {rule!r}",
            cure="set privacy.noise = 'client', or use trimmed_mean, median, mean or norm_checked",
        )
    if smallest_bucket < 1:
        raise PrivacyError(
            f"smallest bucket has {smallest_bucket} members", cure="leave out empty buckets"
        )
    return 1.0 / (smallest_bucket * (buckets - 2 * chosen.trimmed(buckets, trim)))


def _all_finite(block: NDArray[np.float64]) -> bool:
    """Whether a block holds no NaN or infinity.

    Then its sum is finite too, unless that overflows, which is looked into; ``einsum`` is numpy's
    fastest way over the block.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.einsum("ij->", block)
    return bool(np.isfinite(total) or np.isfinite(block).all())


def _not_finite(means: NDArray[np.float64]) -> ProtocolError:
    bad = [bucket for bucket, mean in enumerate(means) if not np.isfinite(mean).all()]
    return ProtocolError(
        f"means of buckets {bad} hold NaN or infinity", cure="leave those buckets out"
    )


def _check_cohort(name: str, rule: Rule, buckets: int, trim: int) -> None:
    if trim < 0:
        raise SettingsError(f"robust.trim = {trim} is negative", cure="set robust.trim >= 0")
    needed = 2 * trim + 1 if rule.robust else 1
    if buckets < needed:
        largest = max(0, (buckets - 1) // 2)
        raise CohortError(
            f"robust.rule = {name!r} with robust.trim = {trim} needs {needed} buckets, "
            f"there are {buckets}",
            cure=f"have at least {needed} times secure.bucket_size clients finish, or set "
            f"robust.trim <= {largest}",
        )
