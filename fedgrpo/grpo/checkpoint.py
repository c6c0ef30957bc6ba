"""Stop a trainer at any step and carry on, bit for bit.

What a step depends on is kept: adapter with its frozen part, reference, optimiser, random numbers
of prompts and completions, the prompts that are left of the shuffle, completions that still owe
steps, the best adapter and the figures that warnings look back on. Randomness inside a reward
function is the function's own.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from fedgrpo.ground.errors import FedGRPOError, RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.grpo.learning.best import WINDOW, BestAdapter, BestKeeper
from fedgrpo.grpo.learning.health import HISTORY
from fedgrpo.grpo.learning.metrics import BatchFigures, StepMetrics
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.grpo.trainer import Batch, GRPOTrainer
from fedgrpo.rewards.composite import RewardResult

VERSION = 2

State = dict[str, Any]


def save_trainer(trainer: GRPOTrainer, path: Path) -> None:
    """Write everything that the next step depends on, atomically.

    The file holds completions that are still to be learned from: only its owner may read it, and it
    stays on the machine that holds the prompts.
    """
    buffer = io.BytesIO()
    torch.save(trainer_state(trainer), buffer)
    replace_file(path, buffer.getvalue(), mode=0o600)


def load_trainer(trainer: GRPOTrainer, path: Path) -> None:
    """Carry on where :func:`save_trainer` was called; raises RunError if the file cannot be read,
    or is of other settings, another model or other prompts.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        restore_trainer(trainer, state)
    except FedGRPOError:
        raise
    except (
        OSError,
        RuntimeError,
        EOFError,
        UnpicklingError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:
        raise RunError(
            f"{path} cannot be read as a trainer's state: {type(error).__name__}",
            cure="delete it to begin anew",
        ) from error


def trainer_state(trainer: GRPOTrainer) -> State:
    """Tensors and plain values alone, so that reading it back runs no code."""
    adapter, collector, keeper = trainer.adapter, trainer.collector, trainer.keeper
    best = keeper.best
    return {
        "version": VERSION,
        "began_with": fingerprints(trainer),
        "steps_done": trainer.steps_done,
        "vector": torch.from_numpy(adapter.vector()),
        "frozen": {name: tensor.detach().cpu() for name, tensor in adapter.frozen.items()},
        "reference": torch.from_numpy(trainer.policy.reference),
        "credit": trainer.credit.state_dict(),
        "guide": collector.guide.state_dict(),
        "optimiser": trainer.updater.optimiser.state_dict(),
        "prompt_numbers": json.dumps(collector.rng.bit_generator.state),
        "completion_numbers": trainer.policy.generator.get_state(),
        "order": list(collector.order),
        "pending": None if trainer.pending is None else _pack_batch(trainer.pending),
        "recent": list(keeper.recent),
        "best": None if best is None else (best.step, best.reward, torch.from_numpy(best.vector)),
        "history": [step.as_row() for step in trainer.history],
    }


def restore_trainer(trainer: GRPOTrainer, state: State) -> None:
    """The inverse of :func:`trainer_state`; raises RunError if the state is of another version,
    other settings, another model or other prompts.
    """
    if state.get("version") != VERSION:
        raise RunError(
            f"the trainer's state has version {state.get('version')!r}, this code writes {VERSION}",
            cure="begin anew, or carry on with the package that wrote it",
        )
    kept, now = dict(state["began_with"]), fingerprints(trainer)
    if other := [name for name in now if kept.get(name) != now[name]]:
        raise RunError(
            f"the trainer's state is of other {' and other '.join(other)}",
            cure=f"carry on with the {' and '.join(other)} that the run began with, or begin a new "
            "run with --fresh or another --run-dir",
        )
    adapter, collector = trainer.adapter, trainer.collector
    with torch.no_grad():
        for name, tensor in adapter.frozen.items():
            tensor.copy_(state["frozen"][name])
    adapter.set_vector(state["vector"].numpy())
    trainer.policy.reference = state["reference"].numpy()
    trainer.policy.generator.set_state(state["completion_numbers"])
    trainer.updater.optimiser.load_state_dict(state["optimiser"])
    trainer.credit.load_state_dict(state["credit"])
    collector.guide.load_state_dict(state["guide"])
    collector.rng = np.random.default_rng()
    collector.rng.bit_generator.state = json.loads(state["prompt_numbers"])
    collector.order = list(state["order"])
    with adapter.at(trainer.policy.reference):
        # Judges judge with the adapter that the round began with.
        collector.reward.bind(adapter)
    trainer.pending = None if state["pending"] is None else _unpack_batch(state["pending"])
    trainer.keeper = _keeper(state)
    trainer.steps_done = state["steps_done"]
    trainer.history = deque((StepMetrics(**row) for row in state["history"]), maxlen=HISTORY)


def fingerprints(trainer: GRPOTrainer) -> dict[str, str]:
    """SHA-256 (hex) of each thing that decides a step. How much memory one may take does not."""
    reward, settings = trainer.collector.reward, trainer.settings
    chosen = settings.model_dump(exclude={"tokens_per_batch", "memory_gb"})
    content: dict[str, object] = {
        "settings": {key: _wherever(value) for key, value in chosen.items()},
        "model": trainer.adapter.layout,
        "rewards": [list(map(_wherever, reward.names)), reward.weights.tolist()],
        "prompts": trainer.collector.encoded,
    }
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
        for name, part in content.items()
    }


def _wherever(value: object) -> object:
    """A part of a file without the file's folder, which may be moved together with the run."""
    if not isinstance(value, str) or ".py:" not in value:
        return value
    file, _, part = value.partition(".py:")
    return f"{Path(file).name}.py:{part}"


def _keeper(state: State) -> BestKeeper:
    keeper = BestKeeper()
    keeper.recent = deque(state["recent"], maxlen=WINDOW)
    if state["best"] is not None:
        step, reward, vector = state["best"]
        keeper.best = BestAdapter(step, reward, vector.numpy())
    return keeper


def _pack_batch(batch: Batch) -> State:
    experience = batch.experience
    return {
        "parts": batch.parts,
        "figures": asdict(batch.figures),
        "rollout": vars(experience.rollout),
        "advantages": experience.advantages,
        "of_experience": dict(experience.figures),
        "refined": experience.refined,
        "total": torch.from_numpy(experience.rewards.total),
        "per_function": {
            name: torch.from_numpy(values)
            for name, values in experience.rewards.per_function.items()
        },
    }


def _unpack_batch(state: State) -> Batch:
    rewards = RewardResult(
        state["total"].numpy(),
        {name: values.numpy() for name, values in state["per_function"].items()},
    )
    experience = Experience(
        Rollout(**state["rollout"]),
        rewards,
        state["advantages"],
        state["of_experience"],
        state["refined"],
    )
    return Batch(experience, BatchFigures(**state["figures"]), state["parts"])
