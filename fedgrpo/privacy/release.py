"""What a client releases, how much noise makes it private, and how the server reads the aggregate.

Update, metrics and clipping indicator leave as one vector through one Gaussian mechanism of
sensitivity 1. Metrics get a share ``a`` of the squared sensitivity and the indicator a share ``s``,
so logged figures and the adaptive clipping norm are covered by the same epsilon as the update, and
the noise multiplier means for the whole vector what it would mean for the update alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy.clipping import clip
from fedgrpo.privacy.grid import GridSum
from fedgrpo.privacy.noise import add_noise
from fedgrpo.settings import METRICS, PrivacySettings

Unit = Literal["none", "prompt", "client"]


@dataclass(frozen=True)
class ReleasePlan:
    """How a round's contributions are scaled and noised. Public, the same for every client.

    Attributes
    ----------
    unit:
        Whose presence is hidden.
    dimension:
        Coordinates of the update, d.
    clipping_norm:
        C, in the update's own units.
    expected_prompts:
        B, the expected number of sampled prompts a client: a constant, since the real number is
        private.
    noise_std:
        Standard deviation of a client's noise in units of the sensitivity 1, before the division by
        B: see :func:`client_noise_std`.
    metrics_share:
        Share ``a`` of the squared sensitivity that metrics get, in (0, 1).
    indicator_share:
        Share ``s`` that the clipping indicator gets, see
        :func:`fedgrpo.privacy.adaptive.indicator_share`. 0 where C is fixed: no indicator is sent.
    radius:
        L2 norm of the ball in which the update's part of a vector that is checked lies, in the
        release's units, at most 1; 0 where no rule checks norms.
    metrics:
        Names of the k metrics, in the order of their coordinates.

    Raises
    ------
    PrivacyError
        If a field is out of range, or noise is asked for where no unit is hidden.
    """

    unit: Unit
    dimension: int
    clipping_norm: float
    expected_prompts: int
    noise_std: float
    metrics_share: float
    indicator_share: float = 0.0
    radius: float = 0.0
    metrics: tuple[str, ...] = tuple(METRICS)

    def __post_init__(self) -> None:
        possible = (
            self.unit in ("none", "prompt", "client")
            and self.dimension >= 1
            and 0 < self.clipping_norm < math.inf
            and self.expected_prompts >= 1
            and 0 <= self.noise_std < math.inf
            and 0 < self.metrics_share < 1
            and 0 <= self.indicator_share < 1 - self.metrics_share
            and 0 <= self.radius <= 1
            and self.metrics
            and (self.unit != "none" or self.noise_std == 0)
        )
        if not possible:
            raise PrivacyError(
                f"{self} cannot be carried out", cure="derive it from validated settings"
            )

    @property
    def size(self) -> int:
        """Coordinates of a released vector: update, metrics and, where C adapts, the indicator."""
        return self.dimension + len(self.metrics) + (self.indicator_share > 0)

    @property
    def bound(self) -> float:
        """Largest absolute coordinate that is encoded; beyond it, values saturate.

        A contribution's coordinates are at most 1 (prompts: at most n/B for n sampled ones, beyond
        2 only if more than twice the expected number agree on one coordinate), and a normal value
        exceeds 12 standard deviations with probability 4e-33.
        """
        return 2.0 + 12.0 * self._released_std

    @property
    def update_scale(self) -> float:
        """Factor from the update's own units to the release's."""
        return math.sqrt(1 - self.metrics_share - self.indicator_share) / self.clipping_norm

    @property
    def figures_norm(self) -> float:
        """Largest L2 norm of what follows the update in a contribution."""
        return math.sqrt(self.metrics_share + self.indicator_share)

    @property
    def metrics_scale(self) -> float:
        """Factor from centred metrics to the release's units."""
        return 2 * math.sqrt(self.metrics_share / len(self.metrics))

    @property
    def indicator_scale(self) -> float:
        """Factor from the centred indicator to the release's units; 0 where C is fixed."""
        return 2 * math.sqrt(self.indicator_share)

    @property
    def _divisor(self) -> int:
        return self.expected_prompts if self.unit == "prompt" else 1

    @property
    def _released_std(self) -> float:
        return self.noise_std / self._divisor


@dataclass(frozen=True)
class Aggregate:
    """What the server learns in a round.

    Attributes
    ----------
    delta:
        float64, shape (d,): the aggregated clipped update (prompts: descent direction) in its own
        units.
    metrics:
        One figure in [0, 1] for each of the plan's metrics, noisy where the update is.
    share_below:
        Noisy share of units whose norm was at most C, unclamped: of clients, or of prompts with a
        signal. None where C is fixed.
    """

    delta: NDArray[np.float64]
    metrics: dict[str, float]
    share_below: float | None


def release_prompts(
    total: GridSum, plan: ReleasePlan, key: bytes | None = None
) -> NDArray[np.float64]:
    """Return a client's prompt-level private contribution: y = (sum_i u_i + N(0, std^2 I)) / B.

    Unit i (a prompt, or all that one person wrote) contributes ``u_i = [sqrt(1-a-s) g_i / C,
    sqrt(a) (m_i - 1/2) 2 / sqrt(k), sqrt(s) 2 (b_i - 1/2)]``, with its clipped descent direction
    g_i, its k metrics m_i and the indicator b_i = 1 if its gradient's norm was at most C.
    Sensitivity: ``||g_i|| <= C``, ``|m_ij - 1/2| <= 1/2`` and ``|b_i - 1/2| <= 1/2``, so
    ``||u_i||^2 <= (1-a-s) + a (4/k) (k/4) + s = 1``. A unit without a gradient has no say in what
    is a typical norm: its last coordinate is 0.

    That holds for the arithmetic that is done. g_i / C, m_i - 1/2 and b_i - 1/2 are whole numbers
    of steps, rounded towards zero, so the bounds above hold for them (:meth:`GridSum.of_unit`).
    Their sum S is exact: adding or removing one unit, which B and the other units do not notice,
    adds or removes its own numbers, in whatever order. From S to the noise each coordinate is
    converted (exact below 2^13 units), scaled and divided by B: three roundings, each of a relative
    2^-53. So two neighbouring sums differ after them by at most ``(1 - 2^-20 (1-a-s)) / B`` for a
    clipped unit, plus ``2^-51 ||y||``, which is below ``2^-20 (1-a-s) / B`` for all sums that
    ``bound`` lets through: at most 1 / B. ``plan.noise_std`` is the noise multiplier.

    Adversary: whoever sees y itself (under client noise, the server colluding with every bucket
    peer), knows all other units, but not which were sampled.

    Parameters
    ----------
    total:
        Sum over the n sampled units; n may be 0.
    plan:
        Of unit "prompt".
    key:
        Of the noise, see :func:`fedgrpo.privacy.noise.add_noise`.

    Returns
    -------
    NDArray[np.float64]
        Shape ``(plan.size,)``.

    Raises
    ------
    PrivacyError
        If shapes or the plan's unit do not fit, or the sum is larger than n units can make it.
    """
    _check_prompts(total, plan)
    direction, metrics, indicator = total.floats()
    parts = [plan.update_scale * plan.clipping_norm * direction, plan.metrics_scale * metrics]
    if plan.indicator_share:
        parts.append(np.array([plan.indicator_scale * indicator]))
    # Dividing before the noise is drawn is the same mechanism, and leaves y on the grid that
    # add_noise rounds to.
    scaled = np.concatenate(parts) / plan.expected_prompts
    return add_noise(scaled, plan.noise_std / plan.expected_prompts, key)


def release_update(
    delta: NDArray[np.floating],
    metrics: NDArray[np.float64],
    plan: ReleasePlan,
    key: bytes | None = None,
) -> NDArray[np.float64]:
    """Return a client's client-level private contribution: y = u + N(0, std^2 I).

    ``u = [sqrt(1-a-s) clip(delta, C) / C, sqrt(a) (m - 1/2) 2 / sqrt(k), sqrt(s) 2 (b - 1/2)]``,
    with the client's k metrics m and the indicator b = 1 if the norm of delta is at most C, where C
    adapts. As in :func:`release_prompts`, ``||u|| <= 1``, so replacing the contribution by zero
    (zero-out adjacency) moves y by at most 1 and ``plan.noise_std`` is the noise multiplier.

    A delta with NaN or infinity contributes zero, and its indicator is 1: it describes what was
    sent, a vector of norm 0. So a diverged step can only lower C, never raise it.

    Adversary: whoever sees y itself; they learn that the client took part, not what it contributed.
    Unit "none" takes the same way without noise and promises nothing.

    Parameters
    ----------
    delta:
        Shape (d,): adapter after minus adapter before.
    metrics:
        float64, shape (k,). Clamped to [0, 1]; NaN counts as 1/2.
    plan:
        Of unit "client" or "none".
    key:
        Of the noise, see :func:`fedgrpo.privacy.noise.add_noise`.

    Returns
    -------
    NDArray[np.float64]
        Shape ``(plan.size,)``.

    Raises
    ------
    PrivacyError
        If shapes or the plan's unit do not fit.
    """
    _check_unit(plan, prompt=False)
    _check_shape("delta", np.asarray(delta), (plan.dimension,))
    _check_shape("metrics", metrics, (len(plan.metrics),))
    clipped = clip(delta, plan.clipping_norm)
    parts = [plan.update_scale * clipped.vector, plan.metrics_scale * _centred(metrics)]
    if plan.indicator_share:
        below = clipped.norm <= plan.clipping_norm
        parts.append(np.array([plan.indicator_scale * (below - 0.5)]))
    return add_noise(np.concatenate(parts), plan.noise_std, key)


def zero_release(plan: ReleasePlan, key: bytes) -> NDArray[np.float64]:
    """Return the release of a client that has nothing to contribute, with the full noise.

    For causes that no prompt can influence (a device that is lost, a process that was killed). It
    is what :func:`release_prompts` makes of no unit at all, and what zero-out adjacency puts in the
    place of a client.

    Parameters
    ----------
    plan:
        Of any unit.
    key:
        The release's own, from which :func:`fedgrpo.ground.crypto.derive_key` derives the noise's.
    """
    noise = derive_key(key, "noise")
    if plan.unit == "prompt":
        return release_prompts(GridSum.nothing(plan.dimension, len(plan.metrics)), plan, noise)
    return release_update(np.zeros(plan.dimension), np.full(len(plan.metrics), np.nan), plan, noise)


def read_aggregate(aggregate: NDArray[np.float64], plan: ReleasePlan) -> Aggregate:
    """Undo the scaling of a mean (or robust mean) of released vectors.

    Pure post-processing of what is private already. Under prompt-level plans the number of sampled
    prompts is not known, so metrics and indicators are read as if it were B: noise apart, a
    figure's distance from 1/2 is off by the factor n/B (m/B). A share of one half is read as one
    half all the same.

    Parameters
    ----------
    aggregate:
        float64, shape ``(plan.size,)``, finite.
    plan:
        The plan that the clients released by.

    Raises
    ------
    PrivacyError
        If the shape does not fit or a value is not finite.
    """
    _check_shape("aggregate", aggregate, (plan.size,))
    if not np.isfinite(aggregate).all():
        raise PrivacyError("the aggregate is not finite", cure="leave the round's result out")
    end = plan.dimension + len(plan.metrics)
    read = np.clip(aggregate[plan.dimension : end] / plan.metrics_scale + 0.5, 0.0, 1.0)
    adaptive = plan.indicator_share > 0
    return Aggregate(
        delta=aggregate[: plan.dimension] / plan.update_scale,
        metrics={name: float(value) for name, value in zip(plan.metrics, read, strict=True)},
        share_below=float(aggregate[-1] / plan.indicator_scale + 0.5) if adaptive else None,
    )


def client_noise_std(privacy: PrivacySettings) -> float:
    """Return the noise that one client adds, in units of its sensitivity 1.

    Client noise: all of z, so the client's vector is private by itself, whatever happens to it
    later: no peer's noise is relied upon. Rounding each noisy vector before it is summed changes
    nothing: at 64 steps a standard deviation, sums of rounded Gaussians equal rounded sums up to
    exp(-2 pi^2 64^2).

    Returns
    -------
    float
        0 without a unit, and for server noise.
    """
    if privacy.unit == "none" or privacy.noise == "server":
        return 0.0
    return privacy.noise_multiplier


def float32_step(bound: float) -> float:
    """Return the L2 change, over sqrt(d), that sending d coordinates as float32 may add to the
    distance of two vectors, all coordinates being within ``bound`` in absolute value.

    Proof. Between two powers of two, ``2^(e-1) <= |x| <= 2^e``, float32 has a grid of step
    ``2^(e-24)`` with both ends on it (24 significant bits), below it a finer one, down to a step of
    ``2^-149``. Rounding to nearest moves a coordinate by at most half a step; with the least e such
    that ``bound <= 2^e``, by at most ``2^(e-25)``. So each of two vectors moves by at most
    ``2^(e-25) sqrt(d)`` in L2, and their distance by at most ``2^(e-24) sqrt(d)``. QED. Where
    clients add the noise, rounding is post-processing and costs nothing.
    """
    mantissa, exponent = math.frexp(bound)
    return math.ldexp(1.0, exponent - (mantissa == 0.5) - 24)


def server_noise_std(
    privacy: PrivacySettings,
    client_sensitivity: float,
    expected_prompts: int,
    *,
    rounding: float = 0.0,
) -> float:
    """Return the noise that the server adds once to the aggregate, with :func:`add_noise`.

    Proof: one unit moves its client's vector by at most L in L2 norm, with L = 1 for a client
    (zeroed out) and L = 1/B for a prompt (one u_i / B, added or removed: see
    :func:`release_prompts`). Saturating the coordinates is 1-Lipschitz and does not enlarge that;
    rounding them adds at most ``rounding``. If one client's vector moves by
    v, the robust rule's result moves by at most ``client_sensitivity`` times the norm of v (trimmed
    mean: 0 <= T(y) - T(x) <= y - x in every coordinate; see :mod:`fedgrpo.robust`). Noise of z
    times the product is the Gaussian mechanism with noise multiplier z.

    Adversary: whoever sees the models that are released. The server sees bucket sums without noise.

    Parameters
    ----------
    privacy:
        The settings.
    client_sensitivity:
        L2 change of the rule's result over that of one client's vector:
        ``fedgrpo.robust.rules.sensitivity`` for the round's buckets.
    expected_prompts:
        B; used for unit "prompt" only.
    rounding:
        L2 change that fixed-point rounding, or float32's (:func:`float32_step`), may add to a
        client's vector: the step times sqrt(size).

    Returns
    -------
    float
        Standard deviation; 0 without a unit, and for client noise.

    Raises
    ------
    PrivacyError
        If a number is out of range.
    """
    if privacy.unit == "none" or privacy.noise == "client":
        return 0.0
    if not (0 < client_sensitivity < math.inf and expected_prompts >= 1 and 0 <= rounding < 1):
        raise PrivacyError(
            f"no noise fits sensitivity = {client_sensitivity}, "
            f"expected prompts = {expected_prompts}, rounding = {rounding}",
            cure="take the sensitivity from the robust rule for the round's buckets",
        )
    unit_norm = 1 / expected_prompts if privacy.unit == "prompt" else 1.0
    return privacy.noise_multiplier * client_sensitivity * (unit_norm + rounding)


def _centred(metrics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move [0, 1] to [-1/2, 1/2], which halves the sensitivity. NaN becomes 0."""
    centred: NDArray[np.float64] = np.clip(metrics, 0.0, 1.0) - 0.5
    return np.nan_to_num(centred, nan=0.0)


def _check_prompts(total: GridSum, plan: ReleasePlan) -> None:
    """Refuse shapes that do not fit, and a sum that cannot be one of clipped directions."""
    _check_unit(plan, prompt=True)
    _check_shape("direction", total.direction, (plan.dimension,))
    _check_shape("metrics", total.metrics, (len(plan.metrics),))
    direction, metrics, indicator = total.floats()
    most = max(np.abs(metrics).max(), abs(indicator)) <= total.units / 2
    if not (np.linalg.norm(direction) <= total.units * (1 + 1e-9) and most):
        raise PrivacyError(
            f"the sum over {total.units} units is larger than they can make it",
            cure="make each unit's share with GridSum.of_unit",
        )


def _check_unit(plan: ReleasePlan, *, prompt: bool) -> None:
    if (plan.unit == "prompt") != prompt:
        raise PrivacyError(
            f"a plan of unit {plan.unit!r} does not go with this kind of contribution",
            cure="use release_prompts for unit 'prompt' and release_update for the others",
        )


def _check_shape(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise PrivacyError(
            f"{name} has shape {array.shape}, not {shape}", cure="build it for this round's plan"
        )
