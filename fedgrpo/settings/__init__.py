"""Every setting once: typed, with its unit, default and source.

A scenario file (TOML) and Flower's flat run configuration fill the same tree, :class:`Settings`.
Flower carries only scalars, so lists travel as comma-separated strings and every key is
``section.name``.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from fedgrpo.ground.errors import FedGRPOError, SettingsError
from fedgrpo.settings.bounds import out_of_bounds
from fedgrpo.settings.checks import check_together
from fedgrpo.settings.grpo import FROM_PRESET, GRPOSettings
from fedgrpo.settings.section import Metrics, Names, Numbers, Section

__all__ = [
    "FROM_PRESET",
    "AdapterSettings",
    "AggregationSettings",
    "DataSettings",
    "EvaluationSettings",
    "FederationSettings",
    "GRPOSettings",
    "Metrics",
    "ModelSettings",
    "Names",
    "Numbers",
    "PrivacySettings",
    "RewardSettings",
    "RobustSettings",
    "RunSettings",
    "Scalar",
    "Section",
    "SecureSettings",
    "ServerSettings",
    "Settings",
    "SimulationSettings",
]

Scalar = bool | int | float | str

RENAMED = {
    "federation.min_holders": "federation.min_clients",
    "simulation.holders": "simulation.clients",
    "simulation.cpus_per_holder": "simulation.cpus_per_client",
    "simulation.gpus_per_holder": "simulation.gpus_per_client",
    "data.prompts_per_holder": "data.prompts_per_client",
}
"""Settings by the names that they had, and what they are called now."""

REMOVED = dict.fromkeys(
    ("privacy.honest_peers", "privacy.honest_mates"),
    "remove it: each client adds all of its noise itself",
)
"""Settings that there are no more, and what to do without them."""


class ModelSettings(Section):
    """The frozen base model, the same on every node."""

    name: str = "tiny"
    """A local path, a Hub name, or ``tiny`` for the model that the package ships."""
    revision: str = ""
    """Commit, tag or branch of a Hub model. Empty takes the default branch; pin it in real
    federations.
    """
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the frozen weights. Adapters are float32 always."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute. ``auto`` takes a GPU if there is one."""


class AdapterSettings(Section):
    """What is trained and travels."""

    kind: Literal["ffa_lora", "lora", "tiny_lora"] = "ffa_lora"
    """FFA-LoRA freezes A, so that the mean of updates is the update of the mean (arXiv 2403.12313).
    """
    rank: int = 1
    """Rank of the low-rank update (of the frozen SVD basis, for TinyLoRA)."""
    alpha: float = 16.0
    """LoRA's scale is alpha / rank. TinyLoRA does not use it."""
    target_modules: Names = ("all-linear",)
    """Names of the linear layers that carry the adapter, or ``all-linear``."""
    projection_dim: int = 4
    """TinyLoRA's trainable coordinates a module, u (arXiv 2602.04118)."""


class DataSettings(Section):
    """Where prompts come from in a simulation. A deployed node names its own file in its own site
    file.
    """

    source: str = "tasks"
    """``tasks`` for the built-in ones, a .jsonl or .parquet file, a dataset saved to disk, or
    ``hf:NAME``.
    """
    split: str = "train"
    """Split of a Hugging Face dataset."""
    tasks: Names = ("add", "reverse", "sort", "maximum")
    """Tasks to draw from: built in, of a module or of a file, with options."""
    prompts_per_client: int = 2000
    """Different prompts generated for each simulated client (built-in tasks only)."""
    min_prompts: int = 2000
    """Public lower bound on a client's units. A client with fewer refuses; the stated epsilon
    assumes it.
    """
    unit: str = ""
    """Column whose value makes rows one unit, for example ``patient_id`` (privacy.unit = 'prompt').
    Empty makes rows with the same text one unit.
    """
    unit_rows: int = 1
    """Most rows of a unit that take part in a round, chosen in secret. They are clipped together.
    """
    heterogeneity: float = 0.5
    """Concentration of the Dirichlet split over tasks or ``partition_by``; smaller is more unequal.
    """
    partition_by: str = ""
    """Column of a file or dataset by which simulated clients differ. Empty splits evenly."""


class RewardSettings(Section):
    """How completions are judged."""

    functions: Names = ("exact_match",)
    """Built-in names, ``package.module:function`` or ``path/to/file.py:function``, with options, in
    TRL's calling convention.
    """
    weights: Numbers = ()
    """One weight a function. Empty weighs all by 1."""
    minimum: float = 0.0
    """Least weighted reward that is reported. Reported rewards are clipped to [minimum, maximum];
    training is not.
    """
    maximum: float = 1.0
    """Largest weighted reward that is reported."""


class PrivacySettings(Section):
    """Clipping and differential privacy."""

    unit: Literal["none", "prompt", "client"] = "prompt"
    """Whose presence is hidden: one prompt with all its copies and completions (or all of a
    person's, see data.unit), a client's whole contribution, or nobody's.
    """
    noise: Literal["client", "server"] = "client"
    """``client``: each client adds noise before anything leaves it. ``server``: noise is added
    once, after the robust rule, by whoever aggregates: the server, or the committee's members
    jointly.
    """
    noise_multiplier: float = 1.0
    """Noise standard deviation over L2 sensitivity, as the stated adversary sees it."""
    delta: float = 1e-5
    """Probability with which the guarantee may fail."""
    max_epsilon: float = 8.0
    """A run that would spend more by its last round is refused before it starts."""
    clipping_norm: float = 1.0
    """L2 norm C at which one unit's contribution is clipped; the start value where it adapts."""
    adaptive: bool = False
    """Let C follow a quantile of the norms (arXiv 1905.03871): of the clients' updates, or of the
    prompts' gradients. Their noisy count takes at most a sixteenth of the budget.
    """
    adaptive_min: int = 20
    """Norms (clients, or expected prompts of all clients) below which C stays as it is in a round.
    """
    quantile: float = 0.5
    """Share of norms that should be at or below C. Prompt-level privacy takes exactly 0.5."""
    clipping_rate: float = 0.2
    """Learning rate of log C."""
    metrics_share: float = 0.02
    """Share of the sensitivity given to reported metrics, which leave through the same noise as the
    update.
    """
    metrics: Metrics = ("reward", "zero_signal", "truncated", "kl")
    """Figures that leave a client, always inside the masked sum: with a unit and client noise under
    accounted noise too, else without. Those not named stay at home; empty sends none.
    """


class AggregationSettings(Section):
    """Who applies the robust rule, and to what."""

    protocol: str = "buckets"
    """``buckets``: the server, to sums of at least ``secure.bucket_size`` clients under masks.
    ``committee``: four clients, to shares of each client's release; the server sees the result.
    ``plain``: the server, to each client's release, for a server that clients trust with it.
    """
    committee: Names = ()
    """The members, four or more, each as ``KEYS`` or ``KEYS@HOST:PORT``, with the keys that
    ``fedgrpo committee-key`` prints. The first four that are there compute a round; any two of all
    together could see every update. With addresses they connect directly, else through the server.
    Empty takes four nodes, which is for simulations.
    """


class SecureSettings(Section):
    """Secure aggregation in buckets."""

    bucket_size: int = 3
    """Least number of clients whose updates are summed under masks before the server sees anything.
    """


class RobustSettings(Section):
    """The rule over bucket means."""

    rule: str = "trimmed_mean"
    """trimmed_mean, median, mean, or a rule of a module or file, with options."""
    trim: int = 1
    """Bucket means dropped at either end: the number of attackers that the rule withstands."""


class ServerSettings(Section):
    """The server's optimiser on the aggregated delta (arXiv 2003.00295)."""

    optimiser: str = "fedadam"
    """fedavg, fedavgm, fedadam, or an optimiser of a module or file, with options."""
    learning_rate: float = 0.01
    """Step size; 1 with fedavg applies the delta as it is."""
    final_rate: float = 0.1
    """The rate falls linearly to this share of itself by the last round."""
    momentum: float = 0.9
    """First-moment decay of fedavgm and fedadam."""
    second_momentum: float = 0.99
    """Second-moment decay of fedadam."""
    epsilon: float = 1e-8
    """Added to fedadam's denominator."""


class FederationSettings(Section):
    """Who takes part, and for how long the server waits."""

    min_clients: int = 9
    """Clients that must be online before a round starts, and finish it for its result to count."""
    wait_s: float = 300.0
    """Seconds to wait for them."""
    round_timeout_s: float = 3600.0
    """Seconds for local training."""
    reply_timeout_s: float = 300.0
    """Seconds for each later message of a round."""


class EvaluationSettings(Section):
    """Held-out accuracy, measured by the server on prompts that no client has."""

    source: str = ""
    """File or dataset of public prompts. Empty takes built-in tasks, or holds rows out of a
    simulation's file.
    """
    prompts: int = 400
    """Held-out prompts."""
    every: int = 5
    """Rounds between two evaluations. The first and last are always evaluated."""


class SimulationSettings(Section):
    """Simulated clients and the faults among them. Ignored in deployment."""

    clients: int = 12
    """Virtual nodes."""
    byzantine: int = 0
    """How many of them attack, from the first."""
    attack: str = "reverse_boost"
    """A built-in attack (fedgrpo.attacks.attacks), or one of a module or file, with options."""
    boost: float = 10.0
    """Factor by which an attacker enlarges what it sends."""
    droppers: int = 0
    """How many of them drop out in some rounds, from the last."""
    dropout: float = 0.3
    """Probability that a dropper drops out of a round."""
    cpus_per_client: int = 1
    """Cores given to a client while it trains: Flower's client-resources-num-cpus."""
    gpus_per_client: float = 0.0
    """Share of a GPU given to a client while it trains: Flower's client-resources-num-gpus."""


class RunSettings(Section):
    """Where this run writes. No part of what is computed."""

    directory: str = ""
    """Run directory. Empty makes ``runs/RUN_ID`` where the server process was started."""
    started_at: float = 0.0
    """Unix time from which wall time is counted. 0 means when the server starts."""


class Settings(Section):
    """The whole tree."""

    rounds: int = 24
    """Federated rounds."""
    seed: int = 0
    """Seed of everything that may be public: tasks, splits, evaluation, initial adapter. Never of
    noise or masks.
    """
    model: ModelSettings = ModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    data: DataSettings = DataSettings()
    reward: RewardSettings = RewardSettings()
    grpo: GRPOSettings = GRPOSettings()
    privacy: PrivacySettings = PrivacySettings()
    aggregation: AggregationSettings = AggregationSettings()
    secure: SecureSettings = SecureSettings()
    robust: RobustSettings = RobustSettings()
    server: ServerSettings = ServerSettings()
    federation: FederationSettings = FederationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    simulation: SimulationSettings = SimulationSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_together(self)
        return self

    @classmethod
    def from_mapping(cls, tree: Mapping[str, Any]) -> Settings:
        """Validate a nested mapping.

        Raises
        ------
        SettingsError
            Names each bad key with its value and the cure.
        """
        try:
            return cls.model_validate(dict(tree))
        except ValidationError as error:
            raise _explain(error) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Settings:
        """Read a scenario file.

        Raises
        ------
        SettingsError
            If the file is missing, is not TOML, or a key or value is not valid.
        """
        return cls.from_mapping(read_toml(Path(path)))

    @classmethod
    def from_run_config(cls, flat: Mapping[str, Scalar]) -> Settings:
        """Read Flower's flat run configuration, ``{"section.name": scalar}``."""
        tree: dict[str, Any] = {}
        for key, value in flat.items():
            section, _, name = key.rpartition(".")
            (tree.setdefault(section, {}) if section else tree)[name] = value
        return cls.from_mapping(tree)

    def to_run_config(self) -> dict[str, Scalar]:
        """Flatten for Flower: the inverse of :meth:`from_run_config`.

        What a preset can fill and neither user nor preset has set is an empty text, so that a
        preset named later, by ``flwr run -c``, can still fill it.
        """
        unset = {f"grpo.{name}" for name in FROM_PRESET - self.grpo.model_fields_set}
        flat: dict[str, Scalar] = {}
        for key, value in self.model_dump().items():
            for name, item in value.items() if isinstance(value, dict) else [("", value)]:
                flat[f"{key}.{name}" if name else key] = (
                    ", ".join(map(str, item)) if isinstance(item, tuple) else item
                )
        return flat | dict.fromkeys(unset, "")

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides what a run computes; resuming asks for the same
        one.
        """
        tree = self.model_dump(exclude={"run"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as it stands.

    Raises
    ------
    SettingsError
        If it is missing, not TOML or not UTF-8.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"scenario file {path} does not exist", cure="check the path") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"scenario file {path} is not valid TOML: {error}", cure="mend that line"
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"scenario file {path} is not UTF-8 from byte {error.start} on", cure="save it as UTF-8"
        ) from None


def _explain(error: ValidationError) -> SettingsError:
    """Turn pydantic's report into one error with key, value and cure for each fault."""
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
            problem, cure = f"unknown setting {key} = {_quoted(fault['input'])}", _nearest(key)
        else:
            problem, cure = f"{key} = {_quoted(fault['input'])}: {fault['msg']}", f"correct {key}"
        problems.append(problem)
        cures.append(cure)
    return SettingsError("; ".join(problems), cure="; ".join(cures))


def _quoted(value: object) -> str:
    """Write a value for people, not all of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _nearest(key: str) -> str:
    import difflib

    if key in RENAMED:
        return f"it is called {RENAMED[key]} now"
    if key in REMOVED:
        return REMOVED[key]
    known = [*Settings().to_run_config(), *Settings.model_fields]
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove {key}; docs/settings.md lists what there is"
