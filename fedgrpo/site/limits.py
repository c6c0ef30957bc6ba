"""A site's policy: what its owner lets the installed package do, whatever a server asks.

The file is TOML, on the data holder's machine. What it does not name is refused (models, rewards,
other code, privacy units), or has the careful default below.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fedgrpo.ground.errors import PolicyError
from fedgrpo.ground.files import toml_of
from fedgrpo.ground.parts import brings_code
from fedgrpo.settings import METRICS, Metrics, Names, Section, Settings
from fedgrpo.settings.protocols.committee.members import check_members
from fedgrpo.site.refusals import Refusal

ANY = "*"
"""Stands for whatever a server names."""


def allowed(name: str, names: tuple[str, ...]) -> bool:
    """Whether a name is among those that a site allows."""
    return name in names or ANY in names


def named_code(settings: Settings) -> Iterator[tuple[str, str]]:
    """Parts besides rewards for which a node would load a module or a file: setting and name."""
    grpo = settings.grpo
    for key in ("advantage", "loss", "credit", "guidance", "engine"):
        name: str = getattr(grpo, key)
        if brings_code(name):
            yield f"grpo.{key}", name
    for name in settings.privacy.own_metrics:
        yield "privacy.metrics", name


def _check_hours(text: str) -> str:
    if text:
        hours_of(text)
    return text


def hours_of(text: str) -> tuple[time, time]:
    """Read ``"20:00-06:00"``; raises ValueError if it is no such pair."""
    start, dash, end = text.partition("-")
    if not dash:
        raise ValueError("write hours as 20:00-06:00")
    return time.fromisoformat(start.strip()), time.fromisoformat(end.strip())


class UnitLimits(Section):
    """What a run keeps to that hides one kind of unit."""

    least_noise: float = Field(default=0.0, ge=0)
    """Least noise multiplier (noise standard deviation over sensitivity, no unit) that the
    strongest adversary faces. 0 leaves it to ``largest_epsilon``."""
    largest_epsilon: float = Field(default=8.0, gt=0)
    """Largest epsilon (no unit) of everything that this site has ever released, at the policy's
    ``delta``. The release that would pass it is refused."""


class Policy(Section):
    """The whole file."""

    prompt: UnitLimits | None = None
    """Table of limits for runs that hide one prompt. Without it such runs are refused."""
    client: UnitLimits | None = None
    """Table of limits for runs that hide the site's whole contribution. Without it such runs are
    refused."""
    without_privacy: bool = False
    """Whether runs without differential privacy are answered. They have no epsilon to limit."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Probability with which the guarantee may fail, for the site's own account."""
    noise_by: Names = ("client",)
    """Who may add the noise: ``client`` trusts nobody else with it, ``committee`` trusts its four
    members not to conspire, ``server`` trusts the server."""
    largest_clipping_norm: float = Field(default=10.0, gt=0)
    """Largest clipping norm, in the adapter's own units: how far one unit may move the model."""
    least_bucket: int = Field(default=3, ge=3)
    """Least number of clients among whose sum this site's update is hidden (``buckets``)."""
    protocols: Names = ("buckets",)
    """Ways in which this site's update may reach the server: values of ``aggregation.protocol``.
    ``buckets`` shows it sums only, ``committee`` the result only, ``plain`` the update itself."""
    committee: Annotated[Names, AfterValidator(check_members)] = ()
    """Members of a committee to whom this site's update may be dealt in shares, four or more: each
    as the 128 hex digits that ``fedgrpo committee-key`` prints. Any two of them all together could
    see every update. Rounds over other members, or over unnamed ones, are refused."""
    models: Names = ()
    """Base models that may be loaded: ``name``, which allows no revision but the default branch,
    ``name@revision`` as the run's settings give them, or ``*`` for any."""
    rewards: Names = ()
    """Reward functions that may be run on the prompts: names as the run's settings give them,
    options included, or ``*`` for any. They are code: name only what you have read."""
    reward_hashes: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default_factory=dict
    )
    """Table of SHA-256 (64 hex digits) of files of rewards, by the names that ``rewards`` has,
    without options: what runs is what was read. A file that is not named here may change."""
    code: Names = ()
    """Losses, advantages, credit, guidance and metrics of modules and files that may be run on the
    prompts: each as the run's settings give it, options included, or ``*`` for any. They see
    prompts and completions, and a loss or advantage that wrongly declares that it looks at one
    prompt alone breaks prompt-level privacy: name only what you have read."""
    stateless_rewards: Names = ()
    """Reward functions and metrics that may run in the node's own process, because whoever wrote
    this file has read that they remember nothing from one prompt to the next."""
    any_weights: bool = False
    """Whether models may be loaded from weights in a format that can hold code (pickle)."""
    prompts_declared: int = Field(default=0, ge=0, le=1_000_000_000)
    """Public upper bound on the number of units (prompts, or persons) here; 0 declares none, and
    runs that hide a prompt are refused. ``fedgrpo policy check`` proposes one."""
    unit_column: str = ""
    """Column whose values are the units here, ``patient_id`` for instance; a run's ``data.unit``
    must name it. Empty: the text of a prompt is the unit. Another column would merge persons or
    part one into many."""
    curated: bool = False
    """Whether the prompts must be a file that ``fedgrpo curate`` has kept, with its manifest beside
    them. It is held against them when they are checked; what has changed since contributes
    nothing."""
    longest_prompt_tokens: int = Field(default=0, ge=0, le=1_000_000_000)
    """Public length (tokens) of the longest prompt that takes part. A longer one contributes
    nothing. 0 declares none, and runs with a privacy unit are refused."""
    answer_after_s: float = Field(default=0.0, ge=0, le=2_592_000)
    """Seconds after which the answer to an order to train leaves, however long the work took. Must
    be longer than the work can take, and shorter than the run's ``federation.round_timeout_s``. 0
    says none, and runs with a privacy unit are refused."""
    metrics: Metrics = tuple(METRICS)
    """Figures about training that may leave. Empty lets none leave. One of a module or file is
    named as the run's settings give it, options included, here and in ``code``."""
    metrics_without_noise: bool = False
    """Whether they may leave where only the sum hides them from the server, and no noise."""
    rounds: int = Field(default=1000, ge=0)
    """Most rounds that are answered, over all runs together."""
    hours: Annotated[str, AfterValidator(_check_hours)] = ""
    """Local time of day in which rounds are answered, ``20:00-06:00``. Empty means always."""
    spent: str = "spent.jsonl"
    """File in which the site keeps what was spent, relative to the policy's own folder."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.spent.strip():
            raise ValueError("spent names no file")
        return self

    @classmethod
    def from_toml(cls, path: Path) -> Policy:
        """Read a policy file; raises PolicyError if it is missing, no TOML, or has an unknown key
        or a value out of range.
        """
        try:
            return cls.model_validate(toml_of(path))
        except ValidationError as error:
            problem = "; ".join(map(_fault, error.errors()))
        except OSError as error:
            problem = type(error).__name__
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = f"not valid TOML: {error}"
        raise PolicyError(
            f"policy file {path}: {problem}",
            code=Refusal.POLICY_FILE,
            cure="mend it; clients/policy.toml explains every key",
        )

    def limits(self, unit: str) -> UnitLimits | None:
        """Limits for runs that hide this unit; None if they are refused."""
        return {"prompt": self.prompt, "client": self.client}.get(unit)

    def open_at(self, now: datetime) -> bool:
        """Whether rounds are answered at this local time."""
        if not self.hours:
            return True
        start, end = hours_of(self.hours)
        here = now.time()
        return start <= here < end if start <= end else here >= start or here < end


def _fault(fault: object) -> str:
    assert isinstance(fault, dict)
    key = ".".join(map(str, fault["loc"]))
    said = fault["msg"].removeprefix("Value error, ")
    return f"{key} = {fault['input']!r}: {said}" if key else said
