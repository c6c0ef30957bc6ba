"""The registry of losses and what all methods share: ratios, KL penalty, entropy, metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import Registry
from fedgrpo.grpo.learning.losses.aggregation import Aggregator, BatchTotals, token_mean
from fedgrpo.grpo.rollout.divergence import LOG_RATIO_LIMIT, k3, kl_penalty


@dataclass(frozen=True)
class TokenBatch:
    """What a surrogate sees: B completions of up to T tokens, zeros where the mask is false.

    Attributes
    ----------
    logps, log_ratio, ratio:
        Log-probability under the policy and its (log) ratio to the sampler's, shape (B, T).
    advantages:
        Shape (B, 1), or (B, T) where tokens of a completion differ.
    mask:
        Bool, shape (B, T).
    """

    logps: Tensor
    log_ratio: Tensor
    ratio: Tensor
    advantages: Tensor
    mask: Tensor

    def mean_over_tokens(self, values: Tensor) -> Tensor:
        """Mean over each completion's tokens, (B, T) to (B, 1)."""
        return (values * self.mask).sum(1, True) / self.mask.sum(1, True).clamp(min=1)


class Surrogate(NamedTuple):
    """Per-token losses, and where the clip bit from below and from above; shape (B, T) or (B, 1)
    where a completion's tokens share one value.
    """

    loss: Tensor
    low: Tensor
    high: Tensor


Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
"""What a temperature or a bound may be: settings may come from a server that nobody trusts."""

Surrogates = TypeVar("Surrogates", bound=Callable[..., Surrogate])


@dataclass(frozen=True)
class LossMethod:
    """A loss, with the defaults of one that declares nothing."""

    surrogate: Callable[..., Surrogate]
    """From a :class:`TokenBatch` and the method's own options, by keyword, to a :class:`Surrogate`.
    The defaults in its signature are the paper's."""
    aggregate: Aggregator = token_mean
    """The divisor."""
    batch_wide: bool = True
    """Whether a completion's loss looks at the other completions of the call."""

    @property
    def options(self) -> frozenset[str]:
        """Names of the method's own options, without those that are settled already."""
        settled = getattr(self.surrogate, "keywords", {})
        return frozenset(list(inspect.signature(self.surrogate).parameters)[1:]) - set(settled)


LOSSES: Registry[LossMethod] = Registry("grpo.loss", kind=LossMethod)


def declare_loss(*, aggregate: Aggregator, batch_wide: bool) -> Callable[[Surrogates], Surrogates]:
    """Say of the decorated surrogate what settings that name it with its file must know.

    Parameters
    ----------
    aggregate:
        One of :mod:`fedgrpo.grpo.learning.losses.aggregation`, or your own.
    batch_wide:
        Say True if the loss of a completion depends on the others of the call other than through
        ``totals``; prompt-level privacy refuses it then, and whatever declares nothing.
    """

    def add(surrogate: Surrogates) -> Surrogates:
        LOSSES.declare(surrogate, LossMethod(surrogate, aggregate, batch_wide))
        return surrogate

    return add


def register_loss(
    name: str, *, aggregate: Aggregator, batch_wide: bool
) -> Callable[[Surrogates], Surrogates]:
    """Declare the decorated surrogate (:func:`declare_loss`), and add it under a name; raises
    SettingsError if the name is taken.
    """

    def add(surrogate: Surrogates) -> Surrogates:
        LOSSES.register(name)(LossMethod(surrogate, aggregate, batch_wide))
        return declare_loss(aggregate=aggregate, batch_wide=batch_wide)(surrogate)

    return add


@dataclass(frozen=True)
class LossResult:
    """A scalar to differentiate, and detached figures about it, scalars too: reading one waits for
    the device.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LossOptions:
    """Options of :func:`compute_loss` that mean the same to every method.

    Attributes
    ----------
    clip_low, clip_high:
        The ratio is clipped to [1 - clip_low, 1 + clip_high]; None takes the method's own range,
        and methods without a clip do not look.
    kl, kl_weight, kl_corrected:
        Estimator, weight and gradient of the KL penalty: see :func:`kl_penalty`.
    entropy, entropy_weight:
        Entropy of the policy at each token in nats, shape (batch, tokens), and the weight of its
        bonus, which is divided as the method divides its loss.
    totals:
        Size of the whole optimiser batch; None takes that of the call.
    max_completion_length:
        Length limit for the constant divisor where there are no totals; None takes the width given.
    """

    clip_low: float | None = None
    clip_high: float | None = None
    kl: str = "k3"
    kl_weight: float = 0.0
    kl_corrected: bool = True
    entropy: Tensor | None = None
    entropy_weight: float = 0.0
    totals: BatchTotals | None = None
    max_completion_length: int | None = None


COMMON = frozenset(option.name for option in fields(LossOptions))


def compute_loss(
    name: str,
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logps: Tensor | None = None,
    **options: Any,
) -> LossResult:
    """Policy loss with an optional KL penalty and entropy bonus; raises SettingsError if the
    method, an option of it or the KL estimator is unknown, or an entropy bonus is asked for without
    entropies.

    Parameters
    ----------
    name:
        A registered method; docs/algorithms.md lists them.
    logps, old_logps, ref_logps:
        Log-probabilities under the policy, the sampler and the reference, shape (batch, tokens).
        Without ``ref_logps`` there is no penalty.
    advantages:
        Shape (batch,), or (batch, tokens) where tokens of a completion differ.
    mask:
        Bool, shape (batch, tokens): the tokens that count.
    options:
        The fields of :class:`LossOptions`, and the method's own.

    Returns
    -------
    The loss, and as metrics the shares of tokens whose ratio the clip bit (``clip_low``,
    ``clip_high``), the divergence from the sampler ``mismatch`` (k3), with a reference ``kl`` (k3)
    and with an entropy ``entropy``, each a mean over the call's tokens.
    """
    method = LOSSES[name]
    chosen = LossOptions(**{key: options[key] for key in options if key in COMMON})
    batch = _token_batch(logps, old_logps, advantages, mask)
    surrogate = method.surrogate(batch, **_own_options(name, method, chosen, options))
    per_token = surrogate.loss.expand_as(batch.logps)
    metrics = {
        "clip_low": _token_share(surrogate.low.expand_as(mask), mask),
        "clip_high": _token_share(surrogate.high.expand_as(mask), mask),
        # Tokens come from the sampler, so its ratio r to the policy gives k3 as (r - 1) - log r.
        "mismatch": _token_share(batch.ratio.detach() - 1 - batch.log_ratio.detach(), mask),
    }
    if ref_logps is not None:
        reference = ref_logps.masked_fill(~mask, 0.0)
        if chosen.kl_weight:
            penalty = kl_penalty(
                chosen.kl, batch.logps, reference, batch.ratio, corrected=chosen.kl_corrected
            )
            per_token = per_token + chosen.kl_weight * penalty
        metrics["kl"] = _token_share(k3(batch.logps.detach(), reference), mask)
    if chosen.entropy is not None:
        entropy = chosen.entropy.masked_fill(~mask, 0.0)
        per_token = per_token - chosen.entropy_weight * entropy
        metrics["entropy"] = _token_share(entropy.detach(), mask)
    totals = chosen.totals or BatchTotals(
        len(mask), int(mask.sum()), chosen.max_completion_length or mask.shape[1]
    )
    return LossResult(method.aggregate(per_token, mask, totals), metrics)


def _token_batch(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> TokenBatch:
    """Zeros where nothing counts, so that fillers of any value (infinite, too) stay harmless."""
    logps = logps.masked_fill(~mask, 0.0)
    log_ratio = logps - old_logps.masked_fill(~mask, 0.0)
    log_ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    per_token = advantages if advantages.dim() == 2 else advantages[:, None]
    return TokenBatch(logps, log_ratio, log_ratio.exp(), per_token, mask)


def _own_options(
    name: str, method: LossMethod, chosen: LossOptions, given: dict[str, Any]
) -> dict[str, Any]:
    """The method's own options, and the clip range if one is given and the method has one."""
    if unknown := set(given) - COMMON - method.options:
        known = ", ".join(sorted(COMMON | method.options))
        raise SettingsError(
            f"loss {name!r} has no option {', '.join(sorted(unknown))}", cure=f"choose from {known}"
        )
    if chosen.entropy_weight and chosen.entropy is None:
        raise SettingsError(
            f"entropy_weight = {chosen.entropy_weight} needs the entropy of every token",
            cure="give entropy, shape (batch, tokens), or set entropy_weight = 0",
        )
    own = {key: value for key, value in given.items() if key not in COMMON}
    clip = {"clip_low": chosen.clip_low, "clip_high": chosen.clip_high}
    return own | {k: v for k, v in clip.items() if v is not None and k in method.options}


@torch.no_grad()
def _token_share(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that count."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
