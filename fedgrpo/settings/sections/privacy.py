"""Settings of clipping and differential privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from fedgrpo.settings.bounds import ITEMS
from fedgrpo.settings.sections.metrics import METRICS
from fedgrpo.settings.sections.section import Section, split

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]
Metrics = Annotated[tuple[MetricName, ...], BeforeValidator(split), Field(max_length=ITEMS)]
"""Names from the table of metrics."""


class PrivacySettings(Section):
    """Clipping and differential privacy."""

    unit: Literal["none", "prompt", "client"] = "prompt"
    """Whose presence is hidden: one prompt with all its copies and completions (or all of a
    person's, see data.unit), a client's whole contribution, or nobody's.
    """
    noise: Literal["client", "server"] = "client"
    """``client``: each client adds noise before anything leaves it. ``server``: noise is added
    once, after the robust rule, by whoever aggregates: the server, or the committee's members
    jointly.
    """
    noise_multiplier: float = 1.0
    """Noise standard deviation over L2 sensitivity, as the stated adversary sees it."""
    delta: float = 1e-5
    """Probability with which the guarantee may fail."""
    max_epsilon: float = 8.0
    """A run that would spend more by its last round is refused before it starts."""
    clipping_norm: float = 1.0
    """L2 norm C at which one unit's contribution is clipped; the start value where it adapts."""
    adaptive: bool = False
    """Let C follow a quantile of the norms (arXiv 1905.03871): of the clients' updates, or of the
    prompts' gradients. Their noisy count takes at most a sixteenth of the budget.
    """
    adaptive_min: int = 20
    """Norms (clients, or expected prompts of all clients) below which C stays as it is in a round.
    """
    quantile: float = 0.5
    """Share of norms that should be at or below C. Prompt-level privacy takes exactly 0.5."""
    clipping_rate: float = 0.2
    """Learning rate of log C."""
    metrics_share: float = 0.02
    """Share of the sensitivity given to reported metrics, which leave through the same noise as the
    update.
    """
    metrics: Metrics = tuple(METRICS)
    """Figures that leave a client, always inside the masked sum: with a unit and client noise under
    accounted noise too, else without. Those not named stay at home; empty sends none.
    """
