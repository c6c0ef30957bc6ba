"""The factory of a node that trains on its own prompts: what it looks at before the charge."""

from __future__ import annotations

from collections.abc import Mapping

from fedgrpo.federation.interfaces import Client
from fedgrpo.ground.errors import DataError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import Declared
from fedgrpo.site.site import is_simulated


class LocalClients:
    """Makes :class:`fedgrpo.federation.node.client.LocalClient`, with torch loaded only when it
    does.
    """

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> Client:
        """See :data:`fedgrpo.federation.interfaces.ClientFactory`."""
        from fedgrpo.federation.node.client import local_client

        return local_client(settings, node_config)

    def prepare(
        self,
        settings: Settings,
        node_config: Mapping[str, Scalar],
        adapter: AdapterState,
        declared: Declared,
    ) -> float:
        """See :class:`fedgrpo.federation.interfaces.PreparingFactory`.

        Raises
        ------
        DataError
            If the node names no prompts.
        ModelError, RewardError, AdapterError
            What cannot be loaded, or does not fit.
        """
        from fedgrpo.federation.node.prompt_client import (
            judge_tokens,
            judging_limits,
            order_seconds,
        )
        from fedgrpo.federation.node.resident import resident
        from fedgrpo.rewards.composite import RewardMixture
        from fedgrpo.rewards.sandboxed.isolated import isolated_mixture

        if "prompts" not in node_config and not is_simulated(node_config):
            raise DataError(
                "this node names no prompts",
                cure="start it with --node-config 'prompts=\"/path/to/prompts.jsonl\"'",
            )
        model = resident(settings, any_weights=declared.any_weights)
        model.load(adapter)
        if settings.privacy.unit != "prompt":
            RewardMixture.from_settings(settings.reward)
            return 0.0
        limits = judging_limits(settings, declared)
        reward = isolated_mixture(
            settings.reward,
            stateless=declared.stateless_rewards,
            limits=limits,
            most_tokens=judge_tokens(settings, declared),
        )
        if not declared.units:
            return 0.0
        reward.bind(model)
        return order_seconds(settings, declared, reward)
