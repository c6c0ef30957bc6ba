"""The norm-checked mean: what one vector can do is bounded by a public ball.

It withstands no attack by itself: f attackers among n still move the result by f/n of the radius,
as far as the worst attack moves a trimmed mean under noise. What it buys is noise: its sensitivity
is that of the mean, 1/n, where trimming k at either end costs 1/(n - 2k).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedgrpo.robust.coordinates import middle_mean
from fedgrpo.robust.rules import Public, register_rule

Vectors = NDArray[np.float64]

FIRST_SIGNAL = 0.25
"""Length of the mean contribution that the first round's radius allows for, in clipping norms;
0.16 to 0.19 was measured for prompts at the start (docs/robustness.md)."""

_ROUNDING = 1e-6
"""Share of a radius by which an honest vector may exceed it after rounding: 2^-24 of it where it is
sent as float32, and no more than that again for what is too small to be rounded in proportion. What
exceeds it by so little is projected, like all."""


@register_rule(
    "norm_checked",
    robust=False,
    trimmed=lambda *_: 0,
    whole=True,
    words=lambda *_: "each held within a public ball",
)
def norm_checked(means: Vectors, trim: int, public: Public) -> Vectors:
    """Mean of vectors whose updates, and whose figures, lie in public balls.

    Single clients project themselves (:func:`inside`), so one outside is no honest client's: it
    counts as zero. A bucket's mean is projected instead, because an attacker beside an honest
    client can hold it at the rim, where one prompt would blank it.

    Sensitivity, as in :func:`fedgrpo.robust.sensitivity` with k = 0. Let one honest client's
    release move by v. Both balls are public, convex and closed, and projection onto such a set is
    1-Lipschitz; update and figures are orthogonal, so projecting each onto its own ball is
    projection onto the product of the balls, which is one as well. So the client's projected
    release moves by at most the norm of v. Single clients: both of its projected releases pass
    the check, which therefore is the identity on them, and the mean of n moves by at most
    ``|v| / n``. Buckets of s: the bucket's mean moves by at most ``|v| / s``, its projection by no
    more, and the mean over B buckets by at most ``|v| / (s B)``. The other clients' vectors are
    free in both cases. QED. Zeroing bucket means would not be Lipschitz, nor would a radius that
    depends on what is being combined.
    """
    del trim
    bounds = (public.radius, public.figures_radius)
    parts = (means[:, : public.update], means[:, public.update :])
    held = [_projected(part, bound) for part, bound in zip(parts, bounds, strict=True)]
    if public.single:
        kept = [
            _lengths(part) <= bound * (1 + _ROUNDING)
            for part, bound in zip(parts, bounds, strict=True)
        ]
        held = [part * (kept[0] & kept[1])[:, None] for part in held]
    return np.concatenate([middle_mean(part, 0) for part in held])


def inside(vector: Vectors, update: int, radius: float, figures_radius: float) -> Vectors:
    """Project a release: its update onto one ball, the figures after it onto another.

    Parameters
    ----------
    vector:
        float64, shape (size,), finite.
    update:
        Leading coordinates that are the update.
    radius, figures_radius:
        Of the balls, in the release's own units.
    """
    parts = ((vector[:update], radius), (vector[update:], figures_radius))
    return np.concatenate([_projected(part[None], bound)[0] for part, bound in parts])


def next_radius(length: float, noise: float, contributions: int, before: float) -> float:
    r"""The radius for the next round, from what the last one released.

    Honest means of B contributions with norms of at most 1 have ``E|y|^2 <= |m|^2 + 1/B``, where m
    is their expectation. The released aggregate tells of ``|m|^2``, once the noise's own share is
    taken off, and it falls as training goes on. Attackers move it by f/n of the last radius, so
    they cannot make the radius grow for ever.

    Parameters
    ----------
    length:
        L2 norm of the released update, in units of the release.
    noise:
        L2 norm (root mean square) of the noise in it.
    contributions:
        B, averaged in each vector that is checked.
    before:
        The radius of that round.
    """
    signal = min(max(length**2 - noise**2, 0.0), before**2)
    return min(1.0, math.sqrt(signal + 1 / contributions))


def first_radius(contributions: int) -> float:
    """The radius of the first round, before anything is released."""
    return min(1.0, math.sqrt(FIRST_SIGNAL**2 + 1 / contributions))


def _projected(vectors: Vectors, bound: float) -> Vectors:
    """Project each row onto the ball of a radius around zero."""
    shorter = np.minimum(1.0, bound / np.maximum(_lengths(vectors), 1e-300))
    return np.asarray(vectors * shorter[:, None])


def _lengths(vectors: Vectors) -> Vectors:
    return np.asarray(np.linalg.norm(vectors, axis=1))
