"""Small scale, everything real but Flower's processes: who learns beside an attacker."""

from functools import cache

import pytest

from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.server.evaluator import local_evaluator
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.ground.records import Evaluation
from fedgrpo.settings import Settings

pytestmark = pytest.mark.slow

CLIENTS = 9


def settings(rule: str, **privacy: object) -> Settings:
    return Settings.from_mapping(
        {
            "rounds": 6,
            "data": {"prompts_per_client": 200, "min_prompts": 200},
            "grpo": {"prompts_per_step": 16},
            "privacy": privacy,
            "robust": {"rule": rule},
            "server": {"learning_rate": 0.005},
            "evaluation": {"prompts": 300, "every": 100},
            "simulation": {"clients": CLIENTS, "byzantine": 1, "boost": 10.0},
        }
    )


@cache
def accuracy(rule: str, unit: str, **privacy: object) -> tuple[Evaluation, Evaluation]:
    """Held-out figures before and after training beside one attacker."""
    chosen = settings(rule, unit=unit, **privacy)
    evaluator = local_evaluator(chosen)
    start = evaluator.initial()
    grid = LocalGrid(make_client_app(), CLIENTS, run_config=chosen.to_run_config())
    strategy = FedGRPO(chosen)
    strategy.start(grid, write_adapter(start))
    assert strategy.state is not None
    return evaluator.evaluate(start), evaluator.evaluate(strategy.state.adapter)


def test_trimmed_mean_learns_beside_an_attacker() -> None:
    before, after = accuracy("trimmed_mean", "none")
    assert after.sampled > before.sampled + 0.1
    assert after.greedy > before.greedy + 0.2


def test_plain_mean_fails_beside_the_same_attacker() -> None:
    before, after = accuracy("mean", "none")
    assert after.sampled < before.sampled
    assert after.sampled < accuracy("trimmed_mean", "none")[1].sampled - 0.2


def test_prompt_level_noise_leaves_enough_to_learn() -> None:
    before, after = accuracy("trimmed_mean", "prompt", noise_multiplier=0.4, max_epsilon=1e6)
    assert after.sampled > before.sampled + 0.05


@pytest.mark.parametrize("optimiser", ["fedavg", "fedavgm"])
def test_other_server_optimisers_step_the_same_way(optimiser: str) -> None:
    chosen = settings("trimmed_mean", unit="prompt", noise="server", max_epsilon=1e6)
    server = chosen.server.model_copy(
        update={"optimiser": optimiser, "learning_rate": 1.0, "momentum": 0.5}
    )
    chosen = chosen.model_copy(update={"server": server, "rounds": 2})
    evaluator = local_evaluator(chosen)
    grid = LocalGrid(make_client_app(), CLIENTS, run_config=chosen.to_run_config())
    strategy = FedGRPO(chosen)
    strategy.start(grid, write_adapter(evaluator.initial()))
    assert strategy.state is not None
    assert strategy.state.adapter.vector.any()


def test_client_level_privacy_trains_a_tiny_adapter_and_adapts_its_clipping_norm() -> None:
    tree = settings("trimmed_mean").model_dump()
    tree["rounds"] = 3
    tree["adapter"] = {"kind": "tiny_lora", "rank": 2, "projection_dim": 4}
    tree["grpo"] = {"prompts_per_step": 8, "steps": 2, "learning_rate": 0.01}
    tree["privacy"] = {
        "unit": "client",
        "adaptive": True,
        "adaptive_min": CLIENTS,
        "clipping_norm": 10.0,
        "metrics_share": 0.6,
        "noise_multiplier": 0.01,
        "max_epsilon": 1e6,
    }
    chosen = Settings.from_mapping(tree)
    start = local_evaluator(chosen).initial()
    grid = LocalGrid(make_client_app(), CLIENTS, run_config=chosen.to_run_config())
    strategy = FedGRPO(chosen)
    result = strategy.start(grid, write_adapter(start))
    assert strategy.state is not None
    assert strategy.state.adapter.vector.size == 112
    assert (strategy.state.adapter.vector != start.vector).any()
    # Every update is far shorter than 10, so C falls by exp(-0.2 * (1 - 0.5)) a round.
    assert strategy.state.progress.clipping_norm == pytest.approx(10 * 0.9048**3, rel=0.05)
    # Noise may carry a small divergence below 0, where it is clipped, but not every time.
    assert any(metrics["kl"] > 0 for metrics in result.train_metrics_clientapp.values())
