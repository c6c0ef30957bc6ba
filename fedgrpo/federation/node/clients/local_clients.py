"""The factory of a node that trains on its own prompts: what it looks at before the charge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fedgrpo.federation.node.clients.given import GIVEN_NOTHING, Given
from fedgrpo.federation.node.clients.interfaces import Client
from fedgrpo.ground.errors import DataError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import Declared
from fedgrpo.site.places import at_home, own_names
from fedgrpo.site.site import is_simulated


class LocalClients:
    """Makes :class:`~fedgrpo.federation.node.clients.client.LocalClient`, with torch loaded only
    when it does.

    Parameters
    ----------
    given:
        Prompts and reward that this process has already, for simulated nodes in one process.
    """

    def __init__(self, given: Given | None = None) -> None:
        self.given = given or GIVEN_NOTHING

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> Client:
        """See :data:`fedgrpo.federation.node.clients.interfaces.ClientFactory`."""
        from fedgrpo.federation.node.clients.client import local_client

        return local_client(at_home(settings, node_config), node_config, self.given)

    def prepare(
        self,
        settings: Settings,
        node_config: Mapping[str, Scalar],
        adapter: AdapterState,
        declared: Declared,
    ) -> float:
        """See :class:`fedgrpo.federation.node.clients.interfaces.PreparingFactory`.

        Raises
        ------
        DataError
            If the node names no prompts.
        SettingsError
            If the algorithm lets prompts weigh on each other where one of them is to be hidden, or
            the node's number of threads is none.
        ModelError, RewardError, AdapterError
            What cannot be loaded, or does not fit.
        """
        from fedgrpo.federation.node.clients.prompt_client import judging_limits, order_seconds
        from fedgrpo.federation.node.clients.resident import resident, use_cores
        from fedgrpo.grpo.learning.isolation import require_isolation

        if "prompts" not in node_config and not is_simulated(node_config):
            raise DataError(
                "this node names no prompts",
                cure="name them in site.toml: prompts = 'prompts.jsonl'",
            )
        settings = at_home(settings, node_config)
        own = own_names(declared.stateless_rewards, node_config)
        declared = replace(declared, stateless_rewards=own)
        use_cores(settings, node_config)
        model = resident(settings, any_weights=declared.any_weights)
        model.load(adapter)
        if settings.privacy.unit != "prompt":
            self.given.mixture(settings)
            return 0.0
        require_isolation(settings.grpo)
        reward = self.given.isolated(settings, declared, judging_limits(settings, declared))
        if not declared.units:
            return 0.0
        reward.bind(model)
        return order_seconds(settings, declared, reward)
