"""What a GPU makes of it: ``python benchmarks/gpu.py [--small]``, one line of JSON a part.

Decoding, a plain step, a step under prompt-level privacy and a federated round of nine clients, on
a model of SmolLM2-135M's shape with made-up weights, or on a folder's (``--model``); beside the
first two what TRL makes of the same job, where it is installed: transformers' ``generate``, and a
step of its trainer. A peer has 40 seconds, and no part begins after three minutes. Without a GPU it
says so. ``--small`` takes the shipped base on whatever device there is, times nothing worth a name,
and holds results against plain transformers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from grpo_vs_trl import Case, make_model, peer
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedgrpo.data.ownership import evaluation_prompts
from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.node.clients.prompt_client import PromptClient
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.server.evaluator import local_evaluator
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.grpo.rollout.engines import OwnEngine
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import TINY, load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings, Settings
from fedgrpo.site.declared import declared_by


@dataclass(frozen=True)
class Size:
    """Of a step, and how often it is taken; the first is not counted."""

    prompts: int
    group: int
    tokens: int
    steps: int


BEGIN_S = 180.0
"""Seconds after which no part begins: a run takes four minutes at most."""
PEER_S = 40.0
"""Seconds that a peer has, its start included; what it has not finished by then is said so."""
LARGE, SMALL = Size(32, 8, 64, 5), Size(6, 4, 8, 1)


def main() -> None:
    """Print a line of JSON for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--model", default="", help="folder of a model")
    parser.add_argument("--peer", choices=("generate", "trl_step"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    small = given.small
    if given.peer:
        work = {"generate": by_generate, "trl_step": by_trl}[given.peer]
        print(json.dumps(work(given.model, SMALL if small else LARGE)))
        return
    if not small and not torch.cuda.is_available():
        print(json.dumps({"error": "no GPU is visible here: --small checks results on a CPU"}))
        return
    size = SMALL if small else LARGE
    with TemporaryDirectory() as folder:
        name = given.model or ("" if small else make_model("llama_135m", Path(folder)))
        values = {"dtype": precision(size)} | ({"name": name} if name else {})
        model = ModelSettings.model_validate(values)
        measure(model, size, small=small)


def measure(model: ModelSettings, size: Size, *, small: bool) -> None:
    """All parts, one after the other."""
    made = Adapter(load_base(model), lora())
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "decoding": lambda: decoding(made, size),
        "generate": lambda: beside("generate", model, small=small),
        "step": lambda: step(made, size),
        "trl_step": lambda: beside("trl_step", model, small=small),
        "apart": lambda: apart(model, size),
        "federation": lambda: federation(model, size),
    }
    if small:
        parts |= {"greedy": lambda: greedy(made, size), "scored": lambda: scored(made, size)}
    end = time.monotonic() + BEGIN_S
    for name, part in parts.items():
        found = part() if time.monotonic() < end else {"not_begun_after_s": BEGIN_S}
        print(json.dumps({"part": name, "card": card, **found}), flush=True)


def lora() -> AdapterSettings:
    """LoRA of rank 16 on all linear layers."""
    return AdapterSettings(kind="lora", rank=16, alpha=32.0)


def rows(size: Size) -> list[PromptRow]:
    """Prompts of the shipped alphabet, of several lengths."""
    names = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(size.prompts)]
    return [PromptRow(name[: 4 + i % 8], {}) for i, name in enumerate(names)]


def letters(completions: list[str], **_: object) -> list[float]:
    """A reward in which completions of a group differ."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


def trainer(made: Adapter, size: Size) -> GRPOTrainer:
    """A trainer that learns from every completion, cut or not."""
    settings = GRPOSettings(
        prompts_per_step=size.prompts,
        group_size=size.group,
        max_completion_length=size.tokens,
        overlong_share=0.1,
    )
    return GRPOTrainer(made, letters, rows(size), settings=settings)


def encoded(made: Adapter, size: Size) -> list[tuple[int, ...]]:
    """The prompts' tokens."""
    return [tuple(made.base.tokenizer.encode(str(row.prompt))) for row in rows(size)]


def timed(work: Callable[[], object], steps: int) -> float:
    """Median seconds, after one that is not counted."""
    taken = []
    for _ in range(steps + 1):
        started = time.monotonic()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.monotonic() - started)
    return statistics.median(taken[1:])


def decoding(made: Adapter, size: Size) -> dict[str, float]:
    """Tokens a second over 2 x prompts x group rows that never end."""
    plan = SamplingPlan(2 * size.group, size.tokens, 1.0, (made.causal.config.vocab_size,), 0)
    prompts = encoded(made, size)
    seconds = timed(lambda: OwnEngine(made).sample(prompts, plan), size.steps)
    tokens = len(prompts) * plan.group_size * plan.max_tokens
    return {"rows": len(prompts) * plan.group_size, "tokens_per_s": round(tokens / seconds, 1)}


def beside(peer: str, model: ModelSettings, *, small: bool) -> dict[str, Any]:
    """What a peer gives in a process of its own, or why it gives nothing."""
    if peer == "trl_step" and find_spec("trl") is None:
        return {"skipped": "trl is not installed"}
    folder = model.name if Path(model.name).is_dir() else str(TINY)
    command = [sys.executable, __file__, "--peer", peer, "--model", folder]
    command += ["--small"] if small else []
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PEER_S, check=False)
    except subprocess.TimeoutExpired:
        return {"not_finished_after_s": PEER_S}
    if said.returncode:
        return {"failed": said.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def by_generate(folder: str, size: Size) -> dict[str, float]:
    """Tokens a second of transformers' own loop over the rows of ``decoding``, which is TRL's."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    causal: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=precision(size)).to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    texts = [str(row.prompt) for row in rows(size) for _ in range(2 * size.group)]
    batch = tokenizer(texts, return_tensors="pt", padding=True).to(device)
    length = {"max_new_tokens": size.tokens, "min_new_tokens": size.tokens, "do_sample": True}
    with torch.no_grad():
        seconds = timed(lambda: causal.generate(**batch, **length), size.steps)
    return {"rows": len(texts), "tokens_per_s": round(len(texts) * size.tokens / seconds, 1)}


def by_trl(folder: str, size: Size) -> dict[str, float]:
    """A step of TRL's trainer, the median of those behind the first."""
    from transformers import TrainerCallback

    taken = [time.monotonic()]

    class Clock(TrainerCallback):
        def on_step_end(self, _: object, __: object, control: Any, **___: object) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(time.monotonic())
            control.should_training_stop = len(taken) > size.steps + 1

    case = Case(size.prompts, size.group, size.tokens, 16, precision(size))
    prompts = [{"prompt": str(row.prompt)} for row in rows(size)]
    cpu = not torch.cuda.is_available()
    with TemporaryDirectory() as kept:
        peer(case, prompts, letters, folder, kept, [Clock()], use_cpu=cpu).train()
    seconds = [after - before for before, after in pairwise(taken)]
    return {"seconds": round(statistics.median(seconds[1:]), 4)}


def precision(size: Size) -> str:
    """That of the model: where results are compared they must be the same."""
    return "float32" if size is SMALL else "bfloat16"


def step(made: Adapter, size: Size) -> dict[str, float]:
    """A plain step."""
    training = trainer(made, size)
    seconds = timed(training.step, size.steps)
    mismatch = training.history[-1].mismatch
    return {"seconds": round(seconds, 4), "mismatch": mismatch}


def private(model: ModelSettings, size: Size) -> Settings:
    """A round of nine clients under prompt-level privacy, over built-in tasks."""
    prompts = 4 * size.prompts
    return Settings.from_mapping(
        {
            "rounds": 2,
            "model": {"name": model.name, "dtype": model.dtype},
            "data": {"prompts_per_client": prompts, "min_prompts": prompts},
            "grpo": {
                "prompts_per_step": size.prompts,
                "group_size": size.group,
                "max_completion_length": size.tokens,
                "overlong_share": 0.1,
            },
            "privacy": {"unit": "prompt", "noise_multiplier": 1.0, "max_epsilon": 1e6},
            "evaluation": {"prompts": size.prompts, "every": 100},
            "simulation": {"clients": 9},
        }
    )


def apart(model: ModelSettings, size: Size) -> dict[str, float]:
    """A client's step under prompt-level privacy: prompts as strangers, a gradient for each."""
    settings = private(model, size)
    client = PromptClient(
        settings,
        Adapter.from_settings(settings),
        isolated_mixture(settings.reward),
        evaluation_prompts(settings),
        declared_by({"partition-id": 0}, settings),
    )
    key = hashlib.sha256(b"benchmark").digest()
    chosen = [row for name in list(client.units) for row in client.rows(name, key)][: size.prompts]

    def work() -> None:
        watch = Watch(None, "", math.inf)
        list(client.engine.teach(client.engine.collect(chosen, watch), watch))

    return {"prompts": len(chosen), "seconds": round(timed(work, size.steps), 4)}


def federation(model: ModelSettings, size: Size) -> dict[str, float]:
    """A round of nine clients in this process, the mean of two with their evaluations."""
    settings = private(model, size)
    start = local_evaluator(settings).initial()
    grid = LocalGrid(make_client_app(), 9, run_config=settings.to_run_config())
    strategy = FedGRPO(settings)
    began = time.monotonic()
    strategy.start(grid, write_adapter(start))
    return {"clients": 9, "seconds_a_round": round((time.monotonic() - began) / 2, 4)}


def greedy(made: Adapter, size: Size) -> dict[str, float]:
    """Share of greedy tokens that are those of ``generate``."""
    plan = SamplingPlan(1, size.tokens, 0.0, made.base.eos_ids, 0)
    found = OwnEngine(made).sample(encoded(made, size), plan)
    same = [_by_generate(made, found, i) for i in range(size.prompts)]
    return {"greedy_as_generate": sum(same) / len(same)}


def _by_generate(made: Adapter, found: Rollout, number: int) -> bool:
    ids = torch.tensor([found.prompts[number]], device=made.base.device)
    with made.merged():
        causal: Any = made.causal
        theirs: torch.Tensor = causal.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=found.tokens.shape[1],
            do_sample=False,
        )
    ours = found.tokens[number][found.mask[number]]
    return torch.equal(ours, theirs[0, ids.shape[1] :].cpu())


def scored(made: Adapter, size: Size) -> dict[str, float]:
    """Furthest that the update's packed log-probabilities are from a plain forward pass's."""
    plan = SamplingPlan(size.group, size.tokens, 1.0, made.base.eos_ids, 0)
    policy = trainer(made, size).policy
    rollout = policy.rollout(encoded(made, size), plan)
    furthest = 0.0
    with torch.no_grad():
        for batch in policy.pack(rollout, range(len(rollout.mask))):
            scores = policy.logps(rollout, batch)
            for row, logps in zip(batch.completions.tolist(), scores, strict=True):
                plain = _plain(made, rollout, row)
                furthest = max(furthest, float((logps[: len(plain)] - plain).abs().max()))
    return {"furthest_logp": furthest}


def _plain(made: Adapter, rollout: Rollout, row: int) -> torch.Tensor:
    prompt = rollout.prompts[row // rollout.group_size]
    tokens = rollout.tokens[row][rollout.mask[row]].to(made.base.device)
    ids = torch.cat([torch.tensor(prompt, device=made.base.device), tokens])[None]
    logits: torch.Tensor = made.causal(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


if __name__ == "__main__":
    main()
