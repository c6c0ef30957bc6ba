"""Settings of clipping and differential privacy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fedgrpo.settings.bounds import ITEMS
from fedgrpo.settings.sections.metrics import METRICS, check_metrics, coordinates, own_metrics
from fedgrpo.settings.sections.section import Section, split

Metrics = Annotated[
    tuple[str, ...], BeforeValidator(split), AfterValidator(check_metrics), Field(max_length=ITEMS)
]
"""Names from the table of metrics, and users' own: of modules and files, with their options."""


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
    update. All of them divide it evenly.
    """
    metrics: Metrics = tuple(METRICS)
    """Figures that leave a client, always inside the masked sum: with a unit and client noise under
    accounted noise too, else without. The house's, which are all on this list, and your own:
    ``package.module:f`` or ``file.py:f(x=2)``, functions of completions as rewards are, held to the
    range that they declare. Those not named stay at home; empty sends none.
    """

    @property
    def own_metrics(self) -> tuple[str, ...]:
        """Metrics of modules and files, as named."""
        return own_metrics(self.metrics)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Figures of a release by name, in their order: every row of the table, named or not, and
        users' own.
        """
        return coordinates(self.metrics)
