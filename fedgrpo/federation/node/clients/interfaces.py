"""What the federation asks of a client's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.knowledge import Insight
from fedgrpo.ground.errors import PolicyError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import Declared

if TYPE_CHECKING:
    from fedgrpo.federation.node.clients.watch import Watch


class ElsewhereError(PolicyError):
    """What a client that computes in another process failed of there.

    Parameters
    ----------
    kind:
        Class of the error, for the site's own people.
    """

    def __init__(self, kind: str, *, code: str) -> None:
        super().__init__(f"the model process failed: {kind}", code=code)
        self.kind = kind


class Client(Protocol):
    """A data holder: private prompts, a base model, and local training."""

    def contribute(
        self,
        adapter: AdapterState,
        plan: ReleasePlan,
        round: int,
        key: bytes,
        watch: Watch,
    ) -> NDArray[np.float64]:
        """Train from the round's global adapter and return what may be summed under masks.

        Parameters
        ----------
        adapter:
            The round's global adapter, with its frozen basis.
        plan:
            How the contribution is normalised, clipped and noised.
        round:
            Round number, from 1.
        key:
            32 secret bytes, the same for the same plan and for no other. All randomness that must
            stay secret comes from it (:func:`fedgrpo.ground.crypto.derive_key`), so that a repeated
            round is the same release.
        watch:
            Tells how much time is left and where an earlier process died, and takes what went
            wrong.

        Returns
        -------
        NDArray[np.float64]
            Finite, shape ``(plan.size,)``: delta and metrics, normalised, clipped and noised.

        Whatever it raises stays on the node, which then releases zero with the full noise.
        """
        ...


ClientFactory = Callable[[Settings, Mapping[str, Scalar]], Client]
"""Makes a client from the run's settings and the node's own configuration, after the release has
been charged for: here prompts may be read.
"""


@runtime_checkable
class PreparingFactory(Protocol):
    """A factory that says before the charge, and without a prompt, whether it can serve."""

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> Client:
        """See :data:`ClientFactory`."""
        ...

    def prepare(
        self,
        settings: Settings,
        node_config: Mapping[str, Scalar],
        adapter: AdapterState,
        declared: Declared,
    ) -> float:
        """Load model and rewards, hold the adapter against them, and size the work.

        Returns
        -------
        float
            Most seconds that an order can cost by public figures; 0 where nothing is sized.

        Raises
        ------
        FedGRPOError
            What cannot be loaded or does not fit. Its class alone decides the code that leaves.
        """
        ...


@runtime_checkable
class TellingFactory(Protocol):
    """A factory that simulates everybody in one process, and tells attackers all of it."""

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> Client:
        """See :data:`ClientFactory`."""
        ...

    def insight(self, adapter: AdapterState, plan: ReleasePlan, round: int) -> Insight:
        """What everybody sends honestly in this round."""
        ...
