"""What rewards cost and what they teach: self-evaluated ones beside a trained reward model.

Everything runs on the shipped base, one thread. *Cost*: CPU-milliseconds to judge one step's
completions (16 prompts x 8), rewards taking turns, medians, beside those of the step itself.
*Lesson*: held-out accuracy after the same number of completions with each reward that the base can
serve; pairs for the reward model are the base's own completions, of which exact match prefers one.
The last line is JSON.

Usage: ``python benchmarks/reward_cost.py [--repeats 7] [--completions 5120] [--seeds 0,1]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.tasks import generate
from fedgrpo.grpo import GRPOTrainer, HeldOut
from fedgrpo.model.base import TINY, load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards import (
    PreferencePair,
    Principle,
    RewardMixture,
    TrainedRewardModel,
    exact_match,
    load_reward,
    preference_accuracy,
    train_reward_model,
)
from fedgrpo.rewards.registry import RewardFunction
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

TASKS = ("add", "reverse", "sort", "maximum")
EVEN = [1.0] * len(TASKS)
RATE, EPOCHS, PAIRS, HELD_OUT_PAIRS = 1e-3, 3, 2000, 500
SETTINGS = GRPOSettings(
    prompts_per_step=16, group_size=8, max_completion_length=10, learning_rate=3e-4, loss="dapo"
)


def trainer(reward: RewardFunction | RewardMixture, seed: int = 0) -> GRPOTrainer:
    """A fresh trainer on the shipped base, with a fact for the rewards that ask for some."""
    adapter = Adapter(
        load_base(ModelSettings(device="cpu")), AdapterSettings(kind="lora", rank=8), seed=0
    )
    rows = [
        PromptRow(row.prompt, {**row.columns, "facts": [row.columns["answer"]]})
        for row in generate(TASKS, 2000, EVEN, seed, held_out=False)
    ]
    return GRPOTrainer(adapter, reward, rows, settings=SETTINGS, seed=seed)


def preference_pairs(count: int, seed: int) -> list[PreferencePair]:
    """A right and a wrong completion of the base for each of ``count`` prompts that have both."""
    source, pairs = trainer(exact_match, seed), []
    while len(pairs) < count:
        chosen = source.next_prompts(64)
        experience = source.collect(chosen)
        texts = source.policy.decode(experience.rollout)
        right = experience.rewards.total.reshape(len(chosen), -1) == 1
        for number, good in enumerate(right):
            if good.any() and not good.all():
                first = number * len(good)
                prompt = source.collector.rows[chosen[number]].prompt
                assert isinstance(prompt, str)
                best, worst = int(good.argmax()), int((~good).argmax())
                pairs.append(PreferencePair(prompt, texts[first + best], texts[first + worst]))
    return pairs[:count]


def reward_model() -> tuple[TrainedRewardModel, dict[str, float]]:
    """A Bradley-Terry model on the shipped base, and what it took."""
    pairs = preference_pairs(PAIRS + HELD_OUT_PAIRS, seed=100)
    started = time.process_time()
    trained = train_reward_model(
        str(TINY), pairs[:PAIRS], epochs=EPOCHS, learning_rate=RATE, device="cpu"
    )
    figures = {
        "training_cpu_s": round(time.process_time() - started, 1),
        "pairs": PAIRS,
        "held_out_pair_accuracy": round(preference_accuracy(trained.reward, pairs[PAIRS:]), 3),
    }
    return trained, figures


def costs(rewards: dict[str, RewardFunction], repeats: int) -> dict[str, float]:
    """Median CPU-milliseconds to judge the completions of one step, and the step's own."""
    source = trainer(exact_match)
    chosen = source.next_prompts()
    experience = source.collect(chosen)
    rows = [source.collector.rows[i] for i in chosen]
    times: dict[str, list[float]] = {name: [] for name in [*rewards, "step"]}
    mixtures = {name: RewardMixture([(name, f, 1.0)]) for name, f in rewards.items()}
    for _ in range(repeats):
        for name, mixture in mixtures.items():
            mixture.bind(source.adapter)
            source.collector.reward = mixture
            times[name].append(spent(lambda: source.collector.reward_of(experience.rollout, rows)))
        source.collector.reward = RewardMixture([("exact_match", exact_match, 1.0)])
        times["step"].append(spent(source.step))
    return {name: round(1e3 * statistics.median(several), 1) for name, several in times.items()}


def spent(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def lesson(reward: RewardFunction, seed: int, completions: int) -> tuple[float, float]:
    """Held-out accuracy before and after training on a reward."""
    source = trainer(reward, seed)
    judge = RewardMixture([("exact_match", exact_match, 1.0)])
    rows = generate(TASKS, 256, EVEN, 7, held_out=True)
    held_out = HeldOut(source.adapter, judge, rows, SETTINGS, seed=7)
    before = held_out.sampled().reward
    steps = completions // (SETTINGS.prompts_per_step * SETTINGS.group_size)
    list(source.train(steps))
    return before, held_out.sampled().reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--completions", type=int, default=5120)
    parser.add_argument("--seeds", default="0,1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trained, report = reward_model()
    teachers: dict[str, RewardFunction] = {
        "exact_match": exact_match,
        "self_consistency": load_reward("self_consistency_text"),
        "self_certainty": load_reward("self_certainty"),
        "reward_model": trained.reward,
    }
    judges = {
        "reasoning_quality": load_reward("reasoning_quality"),
        "principle": Principle("The answer is correct."),
        "judged_grounding": load_reward("judged_grounding"),
    }
    cost = costs({**teachers, **judges}, args.repeats)
    for name, milliseconds in cost.items():
        print(f"{name:20} {milliseconds:8.1f} ms  {milliseconds / cost['step']:6.2f} of a step")
    lessons: dict[str, list[float]] = {}
    for name, reward in teachers.items():
        ends = [lesson(reward, int(seed), args.completions) for seed in args.seeds.split(",")]
        lessons[name] = [round(after, 3) for _, after in ends]
        print(f"{name:20} accuracy {ends[0][0]:.3f} -> {statistics.fmean(lessons[name]):.3f}")
    print(json.dumps({"cost_ms": cost, "reward_model": report, "accuracy_after": lessons}))


if __name__ == "__main__":
    main()
