"""A strategy of one's own: the server caps how far one round may move the adapter.

What `aggregate_train` returns becomes the next global adapter. Everything before it (masks, robust
rule, noise) is done by then, so a subclass may do with the result what it likes: nothing of it
costs privacy.

    python examples/my_strategy.py

In a deployment, name it in `server/app.py`: `app = make_server_app(CappedStep)`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

import fedgrpo
from fedgrpo.federation.wire.messages import read_adapter, write_adapter

LARGEST_STEP = 0.2
"""L2 norm of the largest step, as a trust region has it."""

SETTINGS = {
    "rounds": 3,
    "simulation": {"clients": 9, "byzantine": 1},
    "data": {"prompts_per_client": 50, "min_prompts": 50},
    "grpo": {"prompts_per_step": 4, "group_size": 4},
    "privacy.unit": "none",
    "evaluation.prompts": 50,
}


class CappedStep(fedgrpo.FedGRPO):
    """FedGRPO whose global adapter moves by at most :data:`LARGEST_STEP` a round."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as ever, then shorten the step."""
        before = self.state.adapter
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:  # The round was skipped.
            return None, None
        step = read_adapter(arrays).vector - before.vector
        factor = min(1.0, LARGEST_STEP / max(float(np.linalg.norm(step)), 1e-12))
        return write_adapter(before.moved(before.vector + factor * step)), metrics


class Progress(fedgrpo.Callback):
    """Prints each round as it ends."""

    def on_round(self, row):
        """Hear of a round."""
        print(f"round {row.round}: reward {row.metrics.get('reward')}, held-out {row.sampled}")


def main() -> fedgrpo.Result:
    """The same federation with steps that are capped."""
    result = fedgrpo.simulate(SETTINGS, strategy=CappedStep, callbacks=[Progress()])
    print(result)
    return result


if __name__ == "__main__":
    main()
