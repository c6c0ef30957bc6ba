"""The real client on the shipped base: what it releases, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedgrpo.data.ownership import evaluation_prompts, node_prompts
from fedgrpo.federation.node.clients.client import local_client
from fedgrpo.federation.node.clients.figures import scaled_metrics
from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.server.evaluator import LocalEvaluator
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import DataError, PrivacyError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan, read_aggregate, zero_release
from fedgrpo.settings import METRICS, RewardSettings, Scalar, Settings

pytestmark = pytest.mark.slow

KEYS = (bytes(range(32)), bytes(range(1, 33)))
NODE: dict[str, Scalar] = {"partition-id": 1, "num-partitions": 9}


def make(**changed: Scalar) -> Settings:
    small: dict[str, Scalar] = {
        "data.prompts_per_client": 60,
        "data.min_prompts": 60,
        "grpo.prompts_per_step": 12,
        "grpo.group_size": 4,
        "evaluation.prompts": 50,
        "privacy.max_epsilon": 1e6,
    }
    return Settings.from_run_config(small | {k.replace("__", "."): v for k, v in changed.items()})


def contribution(
    settings: Settings, node: dict[str, Scalar], round: int = 1, key: bytes = KEYS[0]
) -> np.ndarray:
    start, plan = prepared(settings)
    return local_client(settings, node).contribute(start, plan, round, key, Watch())


def prepared(settings: Settings) -> tuple[AdapterState, ReleasePlan]:
    start = LocalEvaluator(settings).initial()
    return start, release_plan(settings, start.vector.size, settings.privacy.clipping_norm)


def test_local_steps_are_a_function_of_seed_client_and_round() -> None:
    settings = make(privacy__unit="none", grpo__steps=2)
    first, again, later = (contribution(settings, NODE, r) for r in (1, 1, 2))
    other = contribution(settings, {**NODE, "partition-id": 2})
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_prompt_release_points_downhill_and_is_bounded() -> None:
    settings = make(privacy__noise="server", grpo__prompts_per_step=60, evaluation__prompts=300)
    start, plan = prepared(settings)
    release = local_client(settings, NODE).contribute(start, plan, 1, KEYS[0], Watch())
    # Every prompt is sampled, so 60 unit contributions over B = 60 are at most 1 long.
    assert np.linalg.norm(release) <= 1 + 1e-9
    moved = start.moved(start.vector + 0.5 * read_aggregate(release, plan).delta)
    evaluator = LocalEvaluator(settings)
    assert evaluator.evaluate(moved).greedy > evaluator.evaluate(start).greedy + 0.1


@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_a_release_is_a_function_of_its_key(unit: str) -> None:
    """Coins, completions and noise: bit for bit, whatever the process did before."""
    settings = make(privacy__unit=unit)
    first, again = (contribution(settings, NODE, key=KEYS[0]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = contribution(settings, NODE, key=KEYS[1])
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2
    assert (first != other).mean() > 0.95


def test_the_order_in_which_clients_share_the_resident_model_changes_nothing() -> None:
    settings = make(privacy__noise="server")
    nodes: list[dict[str, Scalar]] = [{**NODE, "partition-id": number} for number in range(3)]
    forwards = [contribution(settings, node) for node in nodes]
    backwards = [contribution(settings, node) for node in reversed(nodes)]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_prompt_release_is_noised_by_the_client_itself() -> None:
    settings = make(privacy__noise_multiplier=1.5)
    start, plan = prepared(settings)
    client = local_client(settings, NODE)
    first, second = (client.contribute(start, plan, 1, key, Watch()) for key in KEYS)
    spread = (first - second).std() * plan.expected_prompts / np.sqrt(2)
    # 3,972 coordinates: the standard error of the spread is about 1 %; prompts differ a little too.
    assert spread == pytest.approx(1.5, rel=0.1)


def test_sample_without_prompts_still_sends_noise_of_the_same_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedgrpo.federation.node.clients.unit_rows.sampled_units", lambda *_: [])
    settings = make()
    release = contribution(settings, NODE)
    assert release.size == prepared(settings)[1].size
    assert release.std() * 12 == pytest.approx(1.0, rel=0.1)


def test_metrics_arrive_where_the_server_reads_them() -> None:
    settings = make(privacy__unit="none", grpo__steps=2, grpo__prompts_per_step=60)
    _, plan = prepared(settings)
    metrics = read_aggregate(contribution(settings, NODE), plan).metrics
    assert 0.05 < metrics["reward"] < 0.5
    assert 0 < metrics["zero_signal"] < 1
    assert metrics["kl"] > 0


@pytest.mark.parametrize("unit", ["none", "prompt"])
def test_metrics_that_are_not_named_stay_at_home(unit: str) -> None:
    settings = make(privacy__unit=unit, privacy__noise="server", privacy__metrics="truncated")
    _, plan = prepared(settings)
    sent = contribution(settings, NODE)[plan.dimension :]
    kept = [list(METRICS).index(name) for name in METRICS if name != "truncated"]
    assert not sent[kept].any()
    assert sent[list(METRICS).index("truncated")] != 0


def test_prompts_tell_in_the_release_whether_they_were_clipped() -> None:
    shares = []
    for norm in (1e-6, 1e6):
        settings = make(
            privacy__adaptive=True,
            privacy__noise="server",
            privacy__clipping_norm=norm,
            grpo__prompts_per_step=60,
        )
        start, plan = prepared(settings)
        release = local_client(settings, NODE).contribute(start, plan, 1, KEYS[0], Watch())
        share = read_aggregate(release, plan).share_below
        assert share is not None
        shares.append(share)
    # All of them, or none; those without a gradient say neither.
    assert 0.0 <= shares[0] < 0.4
    assert 0.6 < shares[1] <= 1.0


def test_rewards_are_scaled_to_the_unit_interval_and_clipped() -> None:
    figures = {name: np.zeros(3) for name in METRICS}
    figures["reward"] = np.array([-4.0, 0.0, 9.0])
    scaled = scaled_metrics(figures, RewardSettings(minimum=-2.0, maximum=2.0))
    assert scaled[:, list(METRICS).index("reward")].tolist() == [0.0, 0.5, 1.0]


def test_client_with_fewer_prompts_than_epsilon_assumes_refuses(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) for i in range(59)]
    # A text that is there twice is one unit.
    path.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(PrivacyError, match="59 units"):
        local_client(make(), {**NODE, "prompts": str(path)})


def test_node_uses_its_own_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "1+1=", "answer": "2"}) + "\n")
    (row,) = node_prompts(make(), {**NODE, "prompts": str(path)})
    assert row.prompt == "1+1="
    with pytest.raises(DataError, match="names no prompts"):
        node_prompts(make(), {})


def test_no_prompt_of_a_file_is_with_two_clients_or_held_out(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    lines = [json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) for i in range(300)]
    path.write_text("\n".join(lines))
    settings = make(data__source=str(path), data__min_prompts=12, evaluation__prompts=30)
    shares = [node_prompts(settings, {**NODE, "partition-id": i}) for i in range(9)]
    settings = settings.model_copy(
        update={"simulation": settings.simulation.model_copy(update={"clients": 9})}
    )
    everywhere = [row.prompt for share in [*shares, evaluation_prompts(settings)] for row in share]
    assert sorted(everywhere) == sorted(f"{i}+1=" for i in range(300))


def test_a_reward_that_always_fails_leaves_the_noise_alone(tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text("def f(prompts, completions):\n    raise ValueError(prompts[0])\n")
    settings = make(reward__functions=f"{path}:f")
    start, plan = prepared(settings)
    watch = Watch()
    release = local_client(settings, NODE).contribute(start, plan, 1, KEYS[0], watch)
    assert release.tobytes() == zero_release(plan, KEYS[0]).tobytes()
    (cause,) = watch.mishaps
    assert cause == "prompt left out: its completions cannot be judged"
    assert watch.mishaps[cause] > 3


@pytest.mark.parametrize("kind", ["lora", "tiny_lora"])
def test_every_adapter_kind_trains_under_prompt_level_privacy(kind: str) -> None:
    settings = make(adapter__kind=kind, privacy__noise="server")
    assert np.linalg.norm(contribution(settings, NODE)) > 0.05


def test_a_process_makes_its_clients_once_and_not_for_every_message() -> None:
    """What each message's own factory makes is found again, prompts and their tokens with it."""
    chosen = make()
    node: dict[str, Scalar] = {"partition-id": 0, "num-partitions": 3}
    first = LocalClients()(chosen, node)
    assert LocalClients()(chosen, node) is first
