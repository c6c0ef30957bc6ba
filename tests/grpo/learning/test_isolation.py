"""Prompt-level privacy takes no algorithm in which prompts see each other."""

import pytest

from fedgrpo.federation.node.clients.client import LocalClient
from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.resident import resident
from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo import ADVANTAGES, LOSSES, require_isolation
from fedgrpo.settings import GRPOSettings, Settings
from fedgrpo.site.declared import declared_by
from tests.models import tiny_trainer

WIDE = [
    *(("advantage", name) for name, rule in ADVANTAGES.items() if rule.batch_wide),
    *(("loss", name) for name, method in LOSSES.items() if method.batch_wide),
]


def settings(unit: str, **grpo: str) -> Settings:
    return Settings.from_mapping(
        {"privacy": {"unit": unit, "max_epsilon": 1e6}, "grpo": {"steps": 1, **grpo}}
    )


def test_what_looks_beyond_its_prompt_is_known() -> None:
    assert {name for _, name in WIDE} == {
        "lite_ppo",
        "reinforce_pp",
        "reinforce_pp_baseline",
        "gdpo",
        "bnpo",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), WIDE)
def test_batch_wide_methods_are_refused_before_the_run_and_by_every_client(
    kind: str, name: str
) -> None:
    """By the client too, before anything is charged: in a deployment its settings come from a
    server that it may not trust.
    """
    private = settings("prompt", **{kind: name})
    with pytest.raises(SettingsError, match=f"grpo.{kind} = '{name}'") as before:
        preflight(private)
    assert "grpo" in before.value.cure
    assert "privacy.unit to 'client'" in before.value.cure
    node, start = {"partition-id": 0, "num-partitions": 9}, resident(private).state()
    with pytest.raises(SettingsError, match=f"grpo.{kind} = '{name}'"):
        LocalClients().prepare(private, node, start, declared_by(node, private))


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["client", "none"])
def test_without_prompt_level_privacy_they_are_welcome(unit: str) -> None:
    for kind, name in WIDE:
        assert LocalClient(settings(unit, **{kind: name}), tiny_trainer(), None)


def test_group_local_methods_are_taken() -> None:
    for advantage in ("grpo", "dr_grpo", "rloo", "rank"):
        for loss in set(LOSSES) - {"bnpo"}:
            require_isolation(GRPOSettings(advantage=advantage, loss=loss))
