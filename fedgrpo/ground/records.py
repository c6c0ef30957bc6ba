"""Records that are kept: frozen dataclasses of strict types, each one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, ClassVar, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fedgrpo.ground.errors import RunError


class Record:
    """Base of all records: strict types, no unknown keys, and floats that JSON can carry."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False
    )


@dataclass(frozen=True)
class Guarantee(Record):
    """One (epsilon, delta) statement: whose presence is hidden, and from whom."""

    unit: str
    adversary: str
    epsilon: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A held-out prompt with a completion. Private, as prompts are."""

    prompt: str | list[dict[str, str]]
    completion: str
    reward: float
    """Weighted."""
    rewards: dict[str, float | None]
    """By function. None where it does not apply."""
    extra: dict[str, str] = field(default_factory=dict)
    """What reward functions logged beside it (``log_extra``), as text."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of one adapter.

    Attributes
    ----------
    sampled, greedy:
        Mean reward of completions sampled at the training temperature, and of the most likely ones.
    kl_base:
        KL divergence (nats) of the adapter from the initial one.
    rewards:
        Mean of each reward function by name, ``sampled`` and ``greedy``.
    samples:
        A few of the server's own held-out prompts with completions, for its own disk.
    by:
        Mean reward of each value of ``evaluation.by``, ``sampled`` and ``greedy``.
    pass_at:
        Share of prompts that one of k completions solves, by k of ``evaluation.pass_at``.
    """

    sampled: float
    greedy: float
    kl_base: float
    rewards: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    by: dict[str, dict[str, float]] = field(default_factory=dict)
    pass_at: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experience(Record):
    """One completion of one of the site's prompts."""

    prompt: str
    """SHA-256 (hex) of the prompt's text; whoever has the prompt can work it out."""
    completion: str
    reward: float
    """Weighted."""
    rewards: dict[str, float | None]
    """By function; None where it does not apply."""
    adapter: str
    """SHA-256 (hex) of the weights that answered: a released adapter's."""
    run: str
    """Name of the run that released it."""
    round: int
    """Its last round."""
    at: float
    """Unix time, in seconds."""


R = TypeVar("R", bound=Record)


def to_json(record: Record) -> str:
    """Write a record as one line of JSON.

    Raises
    ------
    RunError
        A field has the wrong type, or is NaN or infinite, which JSON cannot carry. Names the field
        and its value.
    """
    text = json.dumps(asdict(cast(Any, record)))
    _parse(type(record), text)  # What is written can be read again, or is not written.
    return text


def from_json(kind: type[R], text: str) -> R:
    """Read a record of the given kind.

    Raises
    ------
    RunError
        The text is not JSON, or a field is missing, unknown, of the wrong type, NaN or infinite.
    """
    record: R = _parse(kind, text)
    return record


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _parse(kind: type[Any], text: str) -> Any:
    try:
        return _adapter(cast(Hashable, kind)).validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join([kind.__name__, *map(str, fault["loc"])])
        raise RunError(
            f"{where}{_shown(fault['input'])}: {fault['msg']}",
            cure="write None for a figure that was not measured; "
            "read a run with the version of fedgrpo that wrote it",
        ) from None


def _shown(value: object) -> str:
    """A number that is wrong, and of anything else nothing: it may hold a prompt."""
    return f" = {value!r}" if value is None or isinstance(value, bool | int | float) else ""
