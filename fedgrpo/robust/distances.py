"""Rules that look at distances between whole vectors. None has a bounded sensitivity.

One prompt can flip who is whose neighbour, and then the result moves by whole vectors, so noise
after such a rule would protect nobody; over releases that their clients noised it is
post-processing. Distances are over the update alone. The figures after it get a trimmed mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import SettingsError
from fedgrpo.robust.coordinates import middle_mean, without_ends
from fedgrpo.robust.rules import Public, register_rule

Vectors = NDArray[np.float64]

_BLOCK = 12_288
_LEAST = 1e-12
"""Share of the vectors' own scale below which a distance counts as none."""


@register_rule(
    "nnm_trimmed_mean",
    whole=True,
    words=lambda count, trim: (
        f"each mixed with its {count - trim - 1} nearest"
        + (f", then {without_ends(count, trim)}" if trim else "")
    ),
)
def nnm_trimmed_mean(means: Vectors, trim: int, public: Public) -> Vectors:
    """Nearest-neighbour mixing before the trimmed mean (arXiv 2302.01772, algorithm 2).

    Each vector becomes the mean of the ``B - trim`` that are nearest to it, itself among them.
    """
    updates, figures = _apart(means, public)
    nearest = np.argsort(squared_distances(updates), axis=1, kind="stable")
    kept = nearest[:, : len(means) - trim]
    mixed = np.stack([middle_mean(updates[rows], 0) for rows in kept])
    return np.concatenate([middle_mean(mixed, trim), middle_mean(figures, trim)])


@register_rule(
    "multi_krum",
    whole=True,
    words=lambda count, trim, keep=0: (
        f"the {keep or count - trim} with the nearest neighbours kept"
    ),
)
def multi_krum(means: Vectors, trim: int, public: Public, *, keep: int = 0) -> Vectors:
    """Multi-Krum (arXiv 1703.02757): mean of those with the least sum of squared distances to
    their ``B - trim - 2`` nearest.

    Options: ``keep``, how many are averaged (the paper's m); 0 takes ``B - trim``.
    """
    if not 0 <= keep <= len(means):
        raise SettingsError(
            f"robust.rule = multi_krum(keep={keep}) over {len(means)} vectors",
            cure=f"set keep from 0 to {len(means)}",
        )
    updates, figures = _apart(means, public)
    ordered = np.sort(squared_distances(updates), axis=1)
    scores = ordered[:, 1 : max(2, len(means) - trim - 1)].sum(axis=1)
    best = np.argsort(scores, kind="stable")[: keep or len(means) - trim]
    return np.concatenate([middle_mean(updates[best], 0), middle_mean(figures, trim)])


@register_rule("geometric_median", whole=True)
def geometric_median(means: Vectors, trim: int, public: Public) -> Vectors:
    """The point of least summed distance (arXiv 1912.13445), by Weiszfeld's iteration, which leaves
    a vector that it meets and that is not the median by Vardi's and Zhang's step
    (doi 10.1073/pnas.97.4.1423).
    """
    updates, figures = _apart(means, public)
    centre = middle_mean(updates, (len(means) - 1) // 2)
    floor = max(_LEAST * float(np.abs(updates).max(initial=0.0)), 1e-290)
    for _ in range(_STEPS):
        gaps = updates - centre
        lengths = _lengths(gaps)
        weights = np.where(lengths > floor, 1 / np.maximum(lengths, floor), 0.0)
        pull, met = weights @ gaps, np.count_nonzero(lengths <= floor)
        if (strength := float(np.linalg.norm(pull))) <= met:
            break
        step = (1 - met / strength) * pull / weights.sum()
        centre = centre + step
        if np.linalg.norm(step) <= _CLOSE * np.linalg.norm(centre):
            break
    return np.concatenate([centre, middle_mean(figures, trim)])


_STEPS, _CLOSE = 1000, 1e-10


@register_rule(
    "centred_clipping",
    whole=True,
    history=True,
    words=lambda *_, **__: "each clipped around the last aggregate",
)
def centred_clipping(
    means: Vectors, trim: int, public: Public, *, radius: float = 0.0, steps: int = 3
) -> Vectors:
    """Centred clipping (arXiv 2012.10333): from the last aggregate, move by the mean of what is
    left of each vector's distance after clipping.

    Options: ``radius`` (the paper's tau, in units of the clipping norm; 0 takes the median norm of
    the updates) and ``steps`` (its L).
    """
    if radius < 0 or steps < 1:
        raise SettingsError(
            f"robust.rule = centred_clipping(radius={radius}, steps={steps})",
            cure="set radius >= 0 and steps >= 1",
        )
    updates, figures = _apart(means, public)
    centre = np.zeros(updates.shape[1]) if public.last is None else public.last
    bound = radius or float(np.median(_lengths(updates)))
    for _ in range(steps):
        gaps = updates - centre
        shorter = np.minimum(1.0, bound / np.maximum(_lengths(gaps), 1e-300))
        centre = centre + middle_mean(gaps * shorter[:, None], 0)
    return np.concatenate([centre, middle_mean(figures, trim)])


def squared_distances(vectors: Vectors) -> Vectors:
    """Squared L2 distances of all pairs, (B, B), from differences, which do not cancel."""
    total = np.zeros((len(vectors), len(vectors)))
    for start in range(0, vectors.shape[1], _BLOCK):
        block = vectors[:, start : start + _BLOCK]
        for row, one in enumerate(block):
            gaps = block - one
            total[row] += np.einsum("ij,ij->i", gaps, gaps)
    return total


def _apart(means: Vectors, public: Public) -> tuple[Vectors, Vectors]:
    """Updates, and the figures after them."""
    return means[:, : public.update], means[:, public.update :]


def _lengths(vectors: Vectors) -> Vectors:
    return np.asarray(np.linalg.norm(vectors, axis=1))
