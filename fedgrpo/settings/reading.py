"""Reading a scenario file, and telling what is wrong with one: key, value and cure."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedgrpo.ground.errors import FedGRPOError, SettingsError
from fedgrpo.ground.files import toml_of
from fedgrpo.settings.bounds import out_of_bounds

RENAMED = {
    "federation.min_holders": "federation.min_clients",
    "simulation.holders": "simulation.clients",
    "simulation.cpus_per_holder": "simulation.cpus_per_client",
    "simulation.gpus_per_holder": "simulation.gpus_per_client",
    "data.prompts_per_holder": "data.prompts_per_client",
}
"""Settings by the names that they had, and what they are called now."""

ELSEWHERE = {
    "num_generations": "grpo.group_size",
    "beta": "grpo.kl_weight",
    "epsilon": "grpo.clip_low",
    "epsilon_high": "grpo.clip_high",
    "num_iterations": "grpo.passes",
    "max_steps": "rounds x grpo.steps",
    "num_train_epochs": "rounds x grpo.steps, in steps",
    "per_device_train_batch_size": "grpo.prompts_per_step, in prompts and not in completions",
    "loss_type": "grpo.loss",
    "optim": "grpo.optimiser",
    "use_vllm": "grpo.engine",
    "reward_funcs": "reward.functions",
    "reward_weights": "reward.weights",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "output_dir": "run.directory",
    "eval_steps": "evaluation.every",
    "model_name_or_path": "model.name",
    "torch_dtype": "model.dtype",
    "dataset_name": "data.source",
    "dataset_config": "data.config",
    "num_rounds": "rounds",
    "num_server_rounds": "rounds",
    "num_supernodes": "simulation.clients",
    "fraction_train": "federation.cohort, in clients",
    "min_available_nodes": "federation.min_clients",
}
"""What TRL, PEFT and Flower call a setting, and what it is called here."""

REMOVED = dict.fromkeys(
    ("privacy.honest_peers", "privacy.honest_mates"),
    "remove it: each client adds all of its noise itself",
)
"""Settings that there are no more, and what to do without them."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises SettingsError if it cannot be read, is not TOML or not UTF-8."""
    try:
        return toml_of(path)
    except FileNotFoundError:
        raise SettingsError(f"scenario file {path} does not exist", cure="check the path") from None
    except OSError as error:
        raise SettingsError(
            f"scenario file {path} cannot be read ({error.strerror or type(error).__name__})",
            cure="name a file that this process may read",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"scenario file {path} is not valid TOML: {error}",
            cure='mend that line: TOML writes key = value, a text as "text" in straight quotes, '
            "and true or false in small letters",
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"scenario file {path} is not UTF-8 from byte {error.start} on", cure="save it as UTF-8"
        ) from None


def explain(error: ValidationError, known: Iterable[str]) -> SettingsError:
    """Turn pydantic's report into one error with key, value and cure for each fault.

    Parameters
    ----------
    error:
        Of a whole tree.
    known:
        Keys that there are, from which the nearest to an unknown one is offered.
    """
    problems, cures = [], []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        own = fault.get("ctx", {}).get("error")
        if isinstance(own, FedGRPOError):
            problem, cure = own.problem, own.cure
        elif fault["type"] == "finite_number":
            named = ".".join(part for part in fault["loc"] if isinstance(part, str))
            outside = out_of_bounds(named, fault["input"])
            problem, cure = outside.problem, outside.cure
        elif fault["type"] == "extra_forbidden":
            problem, cure = (
                f"unknown setting {key} = {_quoted(fault['input'])}",
                _nearest(key, known),
            )
        else:
            problem, cure = f"{key} = {_quoted(fault['input'])}: {fault['msg']}", f"correct {key}"
        problems.append(problem)
        cures.append(cure)
    return SettingsError("; ".join(problems), cure="; ".join(cures))


def faults(error: ValidationError) -> str:
    """Name each key of any file that people have written, and what is wrong with it."""
    found = (f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
    return "; ".join(found)


def _quoted(value: object) -> str:
    """Write a value for people, not all of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _nearest(key: str, known: Iterable[str]) -> str:
    if key in RENAMED:
        return f"it is called {RENAMED[key]} now"
    if key in REMOVED:
        return REMOVED[key]
    if told := ELSEWHERE.get(key.rpartition(".")[2]):
        return f"it is called {told} here"
    names = list(known)
    sections = {name.partition(".")[0] for name in names if "." in name}
    within = [*names, *sections] if "." not in key else names
    close = difflib.get_close_matches(key.lower(), within, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove {key}; docs/settings.md lists what there is"
