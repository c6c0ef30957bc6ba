"""Held-out accuracy of every preset on the shipped base, for one budget of completions.

Each run starts from the same adapter and samples the same number of completions (prompts are
another draw for each seed): a batch of 128 serves two passes over two minibatches, so that ratios
leave 1 and clips have work to do. Held-out prompts are the same for all. A run that is in the
results already is not repeated.

Usage::

    python benchmarks/learning_curves.py run [--presets grpo,ppo] [--rates 3e-4] [--seeds 0,1,2]
    python benchmarks/learning_curves.py table [--target 0.8]
    python benchmarks/learning_curves.py plot
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedgrpo.data.tasks import generate
from fedgrpo.grpo import PRESETS, GRPOTrainer, HeldOut
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards import RewardMixture, exact_match
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

Floats = NDArray[np.float64]

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "learning_curves.jsonl"
PICTURE = HERE.parent / "docs" / "learning_curves.png"

TASKS = ("add", "reverse", "sort", "maximum")
PROMPTS, HELD_OUT, HELD_OUT_SEED = 2000, 256, 7
BUDGET, EVALUATE_EVERY = 10240, 640
"""Completions, those that a method throws away or only values a step with included."""
PROMPTS_PER_BATCH, GROUP = 16, 8
SHARED = {
    "prompts_per_step": PROMPTS_PER_BATCH,
    "group_size": GROUP,
    "passes": 2,
    "minibatches": 2,
    # The shipped base knows no words: what guidance shows it is in its own characters.
    "informed_prompt": "{answer} {prompt}",
    "critique_prompt": "{critique}{completion} {prompt}",
    # Its answers have no lines, so VinePPO values every second character.
    "vine_step": 2,
}
RATE = 3e-4


@dataclass(frozen=True)
class Curve:
    """One run: accuracy of sampled answers after so many completions."""

    preset: str
    rate: float
    seed: int
    completions: list[int]
    accuracy: list[float]
    greedy: float
    cpu_s: float


def learn(preset: str, rate: float, seed: int) -> Curve:
    """Train once and measure along the way."""
    adapter = Adapter(
        load_base(ModelSettings(device="cpu")), AdapterSettings(kind="lora", rank=8), seed=0
    )
    settings = GRPOSettings.model_validate(
        {**SHARED, "preset": preset, "learning_rate": rate, "max_completion_length": 10}
    )
    even = [1.0] * len(TASKS)
    rows = generate(TASKS, PROMPTS, even, seed, held_out=False)
    trainer = GRPOTrainer(adapter, exact_match, rows, settings=settings, seed=seed)
    held_out = HeldOut(
        adapter,
        RewardMixture([("exact_match", exact_match, 1.0)]),
        generate(TASKS, HELD_OUT, even, HELD_OUT_SEED, held_out=True),
        settings,
        HELD_OUT_SEED,
    )
    started = time.process_time()
    completions, accuracy = [0], [held_out.sampled().reward]
    steps = settings.passes * settings.minibatches
    used = 0
    while used < BUDGET:
        batch = list(trainer.train(steps))
        used += batch[0].completions
        if used >= completions[-1] + EVALUATE_EVERY:
            completions.append(used)
            accuracy.append(held_out.sampled().reward)
    seconds = time.process_time() - started
    greedy = held_out.greedy().reward
    return Curve(preset, rate, seed, completions, accuracy, greedy, round(seconds, 1))


def curves() -> Iterator[Curve]:
    """Every run so far."""
    if RESULTS.exists():
        for line in RESULTS.read_text("utf-8").splitlines():
            yield Curve(**json.loads(line))


def run(presets: list[str], rates: list[float], seeds: list[int]) -> None:
    done = {(curve.preset, curve.rate, curve.seed) for curve in curves()}
    RESULTS.parent.mkdir(exist_ok=True)
    for seed in seeds:
        for rate in rates:
            for preset in presets:
                if (preset, rate, seed) in done:
                    continue
                curve = learn(preset, rate, seed)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(curve)) + "\n")
                print(preset, rate, seed, curve.accuracy[-1], curve.cpu_s, flush=True)


def completions_to(curve: Curve, target: float) -> int | None:
    """Completions after which two evaluations in a row reach the target; None if none do."""
    pairs = zip(curve.accuracy, curve.accuracy[1:], strict=False)
    for i, pair in enumerate(pairs):
        if min(pair) >= target:
            return curve.completions[i]
    return None


def table(target: float) -> None:
    """Markdown: end accuracy and its spread over seeds by learning rate, and completions needed."""
    runs: dict[str, dict[float, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    for curve in curves():
        runs[curve.preset][curve.rate].append(curve)
    rates = sorted({rate for by_rate in runs.values() for rate in by_rate})
    head = ["preset", *(f"rate {rate:g}" for rate in rates), f"completions to {target:g}", "CPU-s"]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for preset, by_rate in runs.items():
        cells = [_spread(by_rate.get(rate, [])) for rate in rates]
        best = max(by_rate, key=lambda rate: _mean(c.accuracy[-1] for c in by_rate[rate]))
        needed = [completions_to(curve, target) for curve in by_rate[best]]
        reached = [count for count in needed if count is not None]
        words = f"{_mean(reached):.0f} ({len(reached)} of {len(needed)})" if reached else "-"
        cost = _mean(curve.cpu_s for curve in by_rate[best])
        print("| " + " | ".join([f"`{preset}`", *cells, words, f"{cost:.0f}"]) + " |")


def _spread(several: list[Curve]) -> str:
    ends = [_mean(curve.accuracy[-3:]) for curve in several]
    if not ends:
        return "-"
    return f"{_mean(ends):.2f} ({min(ends):.2f}-{max(ends):.2f})"


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def plot() -> None:
    """One panel a preset: each seed at the common rate, over the mean of all presets in grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fedgrpo.report.plots.style import BLUE, GREY, INK, PALE

    by_preset: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves():
        if curve.rate == RATE:
            by_preset[curve.preset].append(curve)
    columns = 5
    rows = -(-len(by_preset) // columns)
    figure = Figure(figsize=(12, 2.3 * rows + 0.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(by_preset) :]:
        ax.set_axis_off()
    means = {name: _mean_curve(several) for name, several in by_preset.items()}
    for ax, (name, several) in zip(axes.flat, by_preset.items(), strict=False):
        for completions, accuracy in means.values():
            ax.plot(completions, accuracy, color=PALE, linewidth=0.8, zorder=1)
        for curve in several:
            ax.plot(curve.completions, curve.accuracy, color=BLUE, linewidth=0.7, alpha=0.5)
        ax.plot(*means[name], color=BLUE, linewidth=1.8)
        ax.set_title(_title(name), fontsize=9, color=INK, loc="left")
        ax.set_ylim(0, 1)
        ax.set_xlim(0)
        ax.tick_params(labelsize=7, colors=GREY)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    figure.supxlabel("sampled completions", fontsize=9, color=INK)
    figure.supylabel("held-out accuracy (sampled)", fontsize=9, color=INK)
    figure.savefig(PICTURE)
    print(PICTURE)


def _mean_curve(several: list[Curve]) -> tuple[Floats, Floats]:
    grid = np.arange(0, BUDGET + 1, EVALUATE_EVERY)
    values = [np.interp(grid, curve.completions, curve.accuracy) for curve in several]
    return grid, np.mean(values, axis=0)


def _title(name: str) -> str:
    return PRESETS[name].title


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--presets", default=",".join(PRESETS))
    runner.add_argument("--rates", default=f"{RATE}")
    runner.add_argument("--seeds", default="0,1,2")
    commands.add_parser("table").add_argument("--target", type=float, default=0.8)
    commands.add_parser("plot")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "run":
        rates = [float(rate) for rate in args.rates.split(",")]
        run(args.presets.split(","), rates, [int(seed) for seed in args.seeds.split(",")])
    elif args.command == "table":
        table(args.target)
    else:
        plot()


if __name__ == "__main__":
    main()
