"""What a logger, a notebook or a tuner hooks into: told of every round and every step."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Literal

LOG = logging.getLogger(__name__)


class Callback:
    """Override what you want to hear of. What a callback raises is logged, and ends no run.

    Any object with one of these methods serves; this class has both, empty.
    """

    def on_round(self, row: Any) -> None:
        """Hear of a federated round that is over, whether it was applied or skipped.

        Parameters
        ----------
        row:
            :class:`fedgrpo.report.records.RoundRow`: what the server knows, and ``metrics.jsonl``
            holds.
        """

    def on_step(self, metrics: Any) -> None:
        """Hear of an optimiser step of a trainer of one's own. Clients of a federation tell none:
        what they see of their prompts is theirs.

        Parameters
        ----------
        metrics:
            :class:`fedgrpo.grpo.learning.metrics.StepMetrics`.
        """


def tell(callbacks: Iterable[object], event: Literal["on_round", "on_step"], what: object) -> None:
    """Tell each callback that wants to hear of this event."""
    for callback in callbacks:
        listen = getattr(callback, event, None)
        if listen is None:
            continue
        try:
            listen(what)
        except Exception:
            kind, code = type(callback).__name__, {"code": "app-failed"}
            LOG.exception("callback %s failed in %s", kind, event, extra=code)
