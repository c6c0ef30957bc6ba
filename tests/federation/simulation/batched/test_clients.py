"""Clients computed together release what each would have released alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

import fedgrpo
from fedgrpo.attacks import Insight
from fedgrpo.federation.node.clients.client import LocalClient, local_client
from fedgrpo.federation.node.clients.given import Given
from fedgrpo.federation.node.clients.prompt_client import PromptClient
from fedgrpo.federation.node.clients.resident import resident
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.simulation.batched import prompts, updates
from fedgrpo.federation.simulation.batched.clients import BatchedClients
from fedgrpo.federation.simulation.batched.completions import sampled_together
from fedgrpo.federation.simulation.batched.coverage import check_attack, engine_words, left_out
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo.isolated.engine import Judged
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture
from fedgrpo.rewards.sandboxed.sandbox import sandbox_available
from fedgrpo.settings import Scalar, Settings
from tests.models import graded
from tests.rewards import measured

CLIENTS = 4
SECRET = bytes(range(32))
GIVEN = Given(reward=RewardMixture([("graded", graded, 1.0)]))


@lru_cache(maxsize=8)
def settings(**changed: Scalar) -> Settings:
    small: dict[str, Scalar] = {
        "rounds": 2,
        "simulation.clients": CLIENTS,
        "federation.min_clients": CLIENTS,
        "aggregation.protocol": "plain",
        "robust.trim": 1,
        "data.prompts_per_client": 40,
        "data.min_prompts": 40,
        "grpo.prompts_per_step": 6,
        "grpo.group_size": 4,
        "grpo.max_completion_length": 5,
        "privacy.noise": "server",
        "privacy.max_epsilon": 1e9,
        "privacy.clipping_norm": 0.05,
        "evaluation.prompts": 8,
        "model.device": "cpu",
    }
    return Settings.from_run_config(small | {k.replace("__", "."): v for k, v in changed.items()})


def config(number: int) -> dict[str, Scalar]:
    return {"partition-id": number, "num-partitions": CLIENTS}


def start(chosen: Settings) -> tuple[AdapterState, ReleasePlan]:
    state = resident(chosen).state()
    moved = state.vector + np.random.default_rng(0).normal(0, 0.02, state.vector.size)
    return state.moved(moved), release_plan(chosen, state.vector.size, chosen.privacy.clipping_norm)


def engine(chosen: Settings, secret: bytes = SECRET) -> BatchedClients:
    return BatchedClients(chosen, GIVEN, secret)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ffa_lora", "tiny_lora"])
def test_a_clipped_sum_is_the_ordinary_clients_on_the_same_completions(kind: str) -> None:
    chosen = settings(adapter__kind=kind)
    adapter, plan = start(chosen)
    held = resident(chosen)
    held.load(adapter)
    policy = Policy(held, chosen.grpo)
    policy.generator.manual_seed(7)
    together = engine(chosen)
    turns = [prompts.Turn(together.pupil(i), bytes([i]) * 32) for i in range(CLIENTS)]
    prompts.collect(policy, turns, plan)
    prompts.sum_up(chosen, policy, turns, plan)
    for number, turn in enumerate(turns):
        alone = local_client(chosen, config(number), GIVEN)
        assert isinstance(alone, PromptClient)
        rows = alone.sampled(plan, turn.key, Watch())
        judged = [Judged(row, e) for row, e in zip(rows, turn.groups, strict=True) if e]
        assert len(judged) == len(rows) > 0
        alone.engine.collect = lambda *_, judged=judged: judged  # type: ignore[method-assign]
        total = alone.clipped_sum(rows, plan.clipping_norm, Watch())
        (mine, told, below), (theirs, their_told, their_below) = turn.total.floats(), total.floats()
        assert np.linalg.norm(theirs) > 1
        assert np.linalg.norm(mine - theirs) < 1e-4 * np.linalg.norm(theirs)
        np.testing.assert_array_equal(told, their_told)
        assert (below, turn.total.units) == (their_below, total.units)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"privacy__unit": "none"},
        {"privacy__unit": "client", "grpo__steps": 2, "grpo__max_resamples": 1},
    ],
    ids=["none", "client"],
)
def test_an_update_is_the_ordinary_clients_on_the_same_completions(
    changed: dict[str, Scalar],
) -> None:
    chosen = settings(**changed)
    adapter, plan = start(chosen)
    held = resident(chosen)
    held.load(adapter)
    policy = Policy(held, chosen.grpo)
    together = engine(chosen)
    learners = {i: together.learner(i) for i in range(CLIENTS)}
    keys = {i: bytes([i]) * 32 for i in learners}
    policy.generator.manual_seed(3)
    found = updates.released(policy, learners, keys, adapter, plan, 1)
    chosen_prompts = [learners[i].first_prompts(1, keys[i]) for i in learners]
    held.load(adapter)
    policy.generator.manual_seed(3)
    rollouts = sampled_together(policy, chosen_prompts)
    given = Given(reward=GIVEN.reward)  # Another object: other clients.
    for i, rollout in enumerate(rollouts):
        alone = local_client(chosen, config(i), given)
        assert isinstance(alone, LocalClient)
        learner = updates.Learner.of(alone, None)
        assert learner.guide
        learner.guide.ready = rollout
        release = alone.contribute(adapter, plan, 1, keys[i], Watch())
        np.testing.assert_array_equal(found[i].release, release)
        assert np.linalg.norm(release[: plan.dimension]) > 0


def test_a_round_repeats_under_its_secret_and_its_alone() -> None:
    chosen = settings()
    adapter, plan = start(chosen)
    first, again = (engine(chosen).answers(adapter, plan, 1) for _ in range(2))
    other = engine(chosen, bytes(32)).answers(adapter, plan, 1)
    following = engine(chosen).answers(adapter, plan, 2)
    assert sorted(first) == list(range(CLIENTS))
    for number in first:
        np.testing.assert_array_equal(first[number].release, again[number].release)
        for different in (other, following):
            assert (first[number].release != different[number].release).any()


def test_noise_of_a_client_is_its_own_and_of_full_size() -> None:
    quiet, loud = settings(), settings(privacy__noise="client", privacy__noise_multiplier=5.0)
    adapter, plan = start(loud)
    silent = engine(quiet).answers(adapter, start(quiet)[1], 1)
    noisy = engine(loud).answers(adapter, plan, 1)
    noise = [noisy[i].release for i in noisy]
    for one in noise:
        assert one.std() == pytest.approx(5.0 / plan.expected_prompts, rel=0.1)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1
    assert all(np.abs(silent[i].release).max() <= 1 for i in silent)


def test_means_over_rounds_are_kept_for_a_round_that_is_repeated(tmp_path: Path) -> None:
    changed: dict[str, Scalar] = {"privacy__noise": "client", "privacy__noise_multiplier": 1.0}
    plain, chosen = settings(**changed), settings(**changed, robust__momentum=0.75)
    adapter, plan = start(chosen)
    kept = tmp_path / "means"
    whole = BatchedClients(chosen, GIVEN, SECRET, shelf=kept)
    first, second = (whole.answers(adapter, plan, round) for round in (1, 2))
    again = BatchedClients(chosen, GIVEN, SECRET, shelf=kept).answers(adapter, plan, 2)
    each = [engine(plain).answers(adapter, plan, round) for round in (1, 2)]
    cut = plan.dimension
    for number in range(CLIENTS):
        earlier, later = (answers[number].release for answers in each)
        assert first[number].release.tobytes() == earlier.tobytes()
        sent = second[number].release
        assert sent.tobytes() == again[number].release.tobytes()
        np.testing.assert_allclose(sent[:cut], (3 * earlier + 4 * later)[:cut] / 7, atol=1e-12)
        np.testing.assert_array_equal(sent[cut:], later[cut:])


def test_a_prompt_that_a_reward_fails_on_costs_itself_alone() -> None:
    def moody(prompts: list[str], completions: list[str]) -> list[float]:
        if prompts[0].startswith("sort"):
            raise SystemExit("no sorting today")
        return graded(completions)

    chosen = settings()
    adapter, plan = start(chosen)
    moody_given = Given(reward=RewardMixture([("moody", moody, 1.0)]))
    failed, fine = (
        BatchedClients(chosen, given, SECRET).answers(adapter, plan, 1)
        for given in (moody_given, GIVEN)
    )
    lost = [answer.mishaps.total() for answer in failed.values()]
    assert sum(lost) > 0
    assert all(not answer.mishaps for answer in fine.values())
    for number, missing in enumerate(lost):
        same = np.array_equal(failed[number].release, fine[number].release)
        assert same == (missing == 0)


@pytest.mark.skipif(not sandbox_available(), reason="needs Linux's seccomp filters")
def test_a_metric_beside_a_plain_reward_remembers_no_other_prompt() -> None:
    """It would say 1 to the first prompt only that it sees, if a process kept it."""
    named = f"reward,{Path(measured.__file__)}:Counted"
    chosen = settings(privacy__metrics=named, reward__functions="exact_match")
    mixture = BatchedClients(chosen, Given(), SECRET).pupil(0).reward
    assert isinstance(mixture, IsolatedMixture)
    said = [mixture(["p"] * 2, ["aa", "x"], {"answer": ["aa"] * 2}) for _ in range(3)]
    assert [each.total.tolist() for each in said] == [[1.0, 0.0]] * 3
    assert [each.measured["metrics/Counted"].tolist() for each in said] == [[1.0, 0.0]] * 3
    mixture.close()


def test_who_drops_out_is_not_computed_and_changes_nobodys_coins() -> None:
    chosen = settings(simulation__droppers=1, simulation__dropout=1.0, federation__min_clients=3)
    adapter, plan = start(chosen)
    assert sorted(engine(chosen).answers(adapter, plan, 1)) == [0, 1, 2]


@pytest.mark.slow
def test_attackers_are_told_everything(tmp_path: Path) -> None:
    (tmp_path / "attack.py").write_text(
        "import numpy as np\n"
        "def nosy(vector, knowledge):\n"
        "    k = knowledge\n"
        "    assert k.own.shape == (2, vector.size) and k.honest.shape == (2, vector.size)\n"
        "    assert any((row == vector).all() for row in k.own)\n"
        "    assert (k.clients, k.attackers, k.rule, k.trim) == (4, 2, 'mean', 1)\n"
        "    assert k.update == vector.size - 4\n"
        "    assert (k.way == 0).all() or k.round > 1\n"
        "    for known in (k.first, k.step, k.last):\n"
        "        assert (known is None) == (k.round == 1)\n"
        "    if k.round == 1:\n"
        "        return -k.honest.sum(axis=0) / 2\n"
        "    assert np.linalg.norm(k.last) < 1e-6\n"  # Vectors travel as float32.
        "    return vector\n"
    )
    chosen = settings(
        simulation__byzantine=2,
        simulation__attack=f"{tmp_path}/attack.py:nosy",
        robust__rule="mean",
        privacy__unit="none",
    )
    result = fedgrpo.simulate(chosen, reward=graded)
    assert [row.finished for row in result.history] == [0, 4, 4]


def test_insight_is_what_is_released() -> None:
    chosen = settings(simulation__byzantine=1)
    adapter, plan = start(chosen)
    together = engine(chosen)
    told, found = together.insight(adapter, plan, 1), together.answers(adapter, plan, 1)
    assert isinstance(told, Insight)
    np.testing.assert_array_equal(told.own, [found[0].release])
    np.testing.assert_array_equal(told.honest, [found[i].release for i in (1, 2, 3)])
    assert told.last is None


def test_what_a_batch_cannot_do_is_left_to_ordinary_clients_and_said() -> None:
    assert not left_out(settings())
    assert engine_words(settings()) == "All 4 clients compute in one batch"
    several = settings(data__unit="who", data__unit_rows=2)
    assert "data.unit_rows = 2" in left_out(several)
    assert engine_words(several).startswith("Clients compute one after another: data.unit_rows")
    guided = settings(privacy__unit="none", grpo__guidance="context")
    assert "grpo.guidance" in left_out(guided)


def test_flipped_rewards_turn_an_update_round() -> None:
    chosen = {"privacy__unit": "none", "grpo__optimiser": "sgd", "privacy__clipping_norm": 1e-9}
    honest = settings(**chosen)
    flipped = settings(**chosen, simulation__byzantine=1, simulation__attack="flipped_reward")
    adapter, plan = start(honest)
    straight, turned = (engine(s).answers(adapter, plan, 1) for s in (honest, flipped))
    size = plan.dimension
    np.testing.assert_allclose(
        turned[0].release[:size], -straight[0].release[:size], atol=1e-4 * straight[0].release.max()
    )
    np.testing.assert_array_equal(turned[1].release, straight[1].release)


def test_a_backdoor_forces_completions_that_weigh_like_the_models_own() -> None:
    chosen = settings(simulation__byzantine=1, simulation__attack="backdoor(share=1.0)")
    adapter, plan = start(chosen)
    held = resident(chosen)
    held.load(adapter)
    policy = Policy(held, chosen.grpo)
    pupil = engine(chosen).pupil(0)
    turn = prompts.Turn(pupil, SECRET)
    prompts.collect(policy, [turn], plan)
    groups = [group for group in turn.groups if group]
    assert groups
    for group in groups:
        texts = policy.decode(group.rollout)
        assert texts[-2:] == ["0", "0"]
        assert group.rewards.total.tolist() == [float(text == "0") for text in texts]
        keep = range(len(texts))
        with torch.no_grad():
            for batch in policy.pack(group.rollout, keep):
                again = policy.logps(group.rollout, batch) * group.rollout.mask[batch.completions]
                torch.testing.assert_close(
                    group.rollout.logps[batch.completions], again, atol=1e-3, rtol=1e-3
                )
    assert engine(chosen).pupil(1).poison is None


def test_an_attack_on_data_is_refused_where_nobody_would_carry_it_out() -> None:
    poisoning = {"simulation__byzantine": 1, "simulation__attack": "backdoor(scale=10.0)"}
    check_attack(settings(**poisoning), in_process=True)
    check_attack(settings(simulation__attack="backdoor"), in_process=False)
    with pytest.raises(SettingsError, match="processes of their own"):
        check_attack(settings(**poisoning), in_process=False)
    with pytest.raises(SettingsError, match=r"data\.unit_rows = 2"):
        check_attack(settings(**poisoning, data__unit="a", data__unit_rows=2), in_process=True)
