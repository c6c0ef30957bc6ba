"""Local GRPO beside TRL's GRPOTrainer: the same job, taking turns, completions per CPU-second.

Each side is a process of its own that takes one optimiser step whenever it is its turn, so a
machine that slows down slows both. Same model, prompts, rewards, group size, lengths, LoRA,
precision and threads. Before that, both compute the loss of one batch, and must agree.

Usage: ``python benchmarks/grpo_vs_trl.py [--steps 5] [--threads 1] [--json]``, after
``pip install trl``. Cases: ``tiny``, the shipped base on its own tasks and their reward, where
groups that agree teach nothing; ``tiny_all_teach``, the same with rewards that disagree in every
group, so that neither side may skip a part of its update; ``llama_135m``, a random Llama of
SmolLM2-135M's shape in bfloat16 with prompts of 128 tokens, whose completions never end early and
whose groups all disagree.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One job, the same for both sides."""

    prompts: int
    group: int
    tokens: int
    rank: int
    dtype: str


CASES = {
    "tiny": Case(prompts=16, group=8, tokens=10, rank=8, dtype="float32"),
    "tiny_all_teach": Case(prompts=16, group=8, tokens=10, rank=8, dtype="float32"),
    "llama_135m": Case(prompts=2, group=8, tokens=32, rank=16, dtype="bfloat16"),
}
RATE = 1e-5


def coin(completions: list[Any], **_: Any) -> list[float]:
    """Disagree in every group."""
    return [float(i % 2) for i in range(len(completions))]


def right(prompts: list[Any], completions: list[Any], answer: list[str], **_: Any) -> list[Any]:
    """The tasks' own reward."""
    from fedgrpo.rewards import exact_match

    return list(exact_match(prompts, completions, answer))


REWARDS = {"tiny": right, "tiny_all_teach": coin, "llama_135m": coin}


def make_model(name: str, folder: Path) -> str:
    """Return the folder of the case's base model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from fedgrpo.model.base import TINY

    if name.startswith("tiny"):
        return str(TINY)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(TINY)).save_pretrained(folder)
    return str(folder)


def make_prompts(name: str) -> list[dict[str, Any]]:
    """Prompts of the built-in tasks, or 128 characters, which are 128 tokens."""
    from fedgrpo.data.tasks import generate

    if name.startswith("tiny"):
        rows = generate(("add", "reverse", "sort", "maximum"), 512, [1.0] * 4, 0, held_out=False)
        return [{"prompt": row.prompt, **row.columns} for row in rows]
    count = CASES[name].prompts
    rng = np.random.default_rng(0)
    return [{"prompt": "".join(rng.choice(list("abcdefgh"), 128))} for _ in range(count)]


class Turn:
    """The child's end of the pipe: wait for a turn, then report what it cost."""

    def begin(self) -> None:
        """Block until it is this side's turn."""
        if not sys.stdin.readline():
            sys.exit(0)
        self.started = time.process_time()

    def end(self) -> None:
        """Report CPU seconds of this turn, and peak memory so far in MiB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report = {"cpu_s": time.process_time() - self.started, "peak_mb": round(peak)}
        print("TURN " + json.dumps(report), flush=True)


def our_trainer(name: str, model: str) -> Any:
    """Return this package's trainer for a case."""
    from fedgrpo.grpo import GRPOTrainer
    from fedgrpo.model.base import load_base
    from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

    case = CASES[name]
    return GRPOTrainer(
        load_base(ModelSettings.model_validate({"name": model, "dtype": case.dtype})),
        REWARDS[name],
        make_prompts(name),
        settings=GRPOSettings(
            prompts_per_step=case.prompts,
            group_size=case.group,
            max_completion_length=case.tokens,
            learning_rate=RATE,
            loss="dapo",
            # Truncated completions take part, as in TRL. All are, or none, so no advantage changes.
            overlong_share=0.1,
        ),
        adapter_settings=AdapterSettings(kind="lora", rank=case.rank, alpha=2.0 * case.rank),
    )


def trl_trainer(name: str, model: str, folder: str, callbacks: list[Any]) -> Any:
    """Return TRL's trainer for a case, on the CPU."""
    return peer(CASES[name], make_prompts(name), REWARDS[name], model, folder, callbacks)


def peer(
    case: Case,
    prompts: list[dict[str, Any]],
    reward: Any,
    model: str,
    folder: str,
    callbacks: list[Any],
    *,
    use_cpu: bool = True,
) -> Any:
    """Return TRL's trainer for a job."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, case.dtype)),
        reward,
        args=GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=case.prompts * case.group,
            num_generations=case.group,
            max_completion_length=case.tokens,
            learning_rate=RATE,
            max_steps=1000,
            loss_type="dapo",
            bf16=case.dtype == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=use_cpu,
            report_to="none",
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=case.rank, lora_alpha=2 * case.rank, target_modules="all-linear"),
        callbacks=callbacks,
    )


def run_ours(name: str, model: str, turn: Turn) -> None:
    """Take this package's steps."""
    trainer = our_trainer(name, model)
    while True:
        turn.begin()
        assert next(iter(trainer.train(1))).applied
        turn.end()


def run_trl(name: str, model: str, turn: Turn) -> None:
    """Take TRL's steps, held back by a callback until it is its turn."""
    from transformers import TrainerCallback

    class Gate(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turn.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turn.end()

    with tempfile.TemporaryDirectory() as folder:
        trl_trainer(name, model, folder, [Gate()]).train()


def run_parity(name: str, model: str, turn: Turn) -> None:
    """Let both compute the loss of one batch, its sampler a little off so that ratios vary."""
    import torch

    turn.begin()
    ours = our_trainer(name, model)
    experience = ours.collect(range(CASES[name].prompts))
    sampled = experience.rollout
    off = 0.03 * torch.randn(sampled.logps.shape, generator=torch.Generator().manual_seed(0))
    rollout = dataclasses.replace(sampled, logps=(sampled.logps + off) * sampled.mask)
    experience = dataclasses.replace(experience, rollout=rollout)
    updater = ours.updater
    totals = updater.totals(experience)
    loss = sum(float(updater.loss(experience, b, totals).loss) for b in updater.batches(experience))
    width = max(map(len, rollout.prompts))
    rows = [prompt for prompt in rollout.prompts for _ in range(rollout.group_size)]
    inputs = {
        "prompt_ids": torch.tensor([[0] * (width - len(row)) + list(row) for row in rows]),
        "prompt_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        "completion_ids": rollout.tokens,
        "completion_mask": rollout.mask.long(),
        "old_per_token_logps": rollout.logps,
        "advantages": experience.advantages,
        "num_items_in_batch": rollout.mask.sum(),
    }
    with tempfile.TemporaryDirectory() as folder:
        trl = trl_trainer(name, model, folder, [])
        trl.current_gradient_accumulation_steps = 1
        theirs = float(trl._compute_loss(trl.model, inputs))
    print("TURN " + json.dumps({"ours": loss, "trl": theirs}), flush=True)


SIDES = {"ours": run_ours, "trl": run_trl, "parity": run_parity}


def spawn(side: str, name: str, model: str, threads: int) -> subprocess.Popen[str]:
    """Start one side as a child that waits for its turns."""
    command = [sys.executable, __file__, "--side", side, "--case", name, "--model", model]
    command += ["--threads", str(threads)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def take_turn(child: subprocess.Popen[str]) -> dict[str, float]:
    """Let a child take one step; its own chatter is skipped."""
    assert child.stdin
    assert child.stdout
    child.stdin.write("go\n")
    child.stdin.flush()
    for line in child.stdout:
        if line.startswith("TURN "):
            report: dict[str, float] = json.loads(line.removeprefix("TURN "))
            return report
    raise RuntimeError(f"a side ended with code {child.wait()}: run it by hand with --side")


def check_parity(name: str, model: str, threads: int) -> dict[str, float]:
    """Loss of one batch by both sides; they must agree up to the precision of the case."""
    child = spawn("parity", name, model, threads)
    losses = take_turn(child)
    child.wait()
    tolerance = 1e-5 if CASES[name].dtype == "float32" else 1e-3
    if abs(losses["ours"] - losses["trl"]) > tolerance:
        raise RuntimeError(f"{name}: the losses of one batch differ: {losses}")
    return {side: round(loss, 6) for side, loss in losses.items()}


def compare(name: str, steps: int, threads: int) -> dict[str, Any]:
    """Alternate both sides; the first turn of each warms up and is not counted."""
    case, turns = CASES[name], {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(name, Path(folder))
        children = {side: spawn(side, name, model, threads) for side in turns}
        try:
            parity = check_parity(name, model, threads)
            for _ in range(steps + 1):
                for side, child in children.items():
                    turns[side].append(take_turn(child))
        finally:
            for child in children.values():
                child.kill()
    rows = case.prompts * case.group
    cost = {side: statistics.median(t["cpu_s"] for t in taken[1:]) for side, taken in turns.items()}
    return {
        "ours": round(rows / cost["ours"], 2),
        "trl": round(rows / cost["trl"], 2),
        "ratio": round(cost["trl"] / cost["ours"], 2),
        "loss_on_one_batch": parity,
        "peak_mb": {side: taken[-1]["peak_mb"] for side, taken in turns.items()},
    }


def main() -> None:
    """Print a line a case, and with ``--json`` one object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        import torch

        torch.set_num_threads(args.threads)
        SIDES[args.side](args.case[0], args.model, Turn())
        return
    results = {name: compare(name, args.steps, args.threads) for name in args.case or CASES}
    for name, result in results.items():
        print(f"{name}: {result}")
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
