"""What was seen of a site's prompts, model and reward, for its own people: nothing of it is noised,
and nothing of it leaves the machine.

It is seen in a process of its own, so that what loops, dies or fills the memory there costs that
process alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedgrpo.ground.errors import FedGRPOError
from fedgrpo.ground.records import Record


@dataclass(frozen=True)
class Fault(Record):
    """An error, on its way between two processes."""

    kind: str
    """Name of its class."""
    problem: str
    cure: str

    @classmethod
    def of(cls, error: FedGRPOError) -> Fault:
        """Write it down."""
        return cls(type(error).__name__, error.problem, error.cure)

    @property
    def error(self) -> FedGRPOError:
        """The same, without its class."""
        return FedGRPOError(self.problem, cure=self.cure)


@dataclass(frozen=True, kw_only=True)
class SeenPrompts(Record):
    """Every row was looked at."""

    rows: int
    units: int
    copies: int
    """Rows of which an earlier one is an exact copy, in every column."""
    longest: int
    """Tokens of the longest prompt."""
    too_long: int
    """Rows above what the site declares, or above ``grpo.max_prompt_length``."""
    limit: int
    """That length, in tokens."""
    unusable: dict[str, int]
    """Rows that cannot be used, by reason."""


@dataclass(frozen=True, kw_only=True)
class SeenModel(Record):
    """A base model that was loaded."""

    fingerprint: str
    """SHA-256 (hex) by which base models are told apart."""
    device: str


@dataclass(frozen=True, kw_only=True)
class SeenReward(Record):
    """Rewards that judged a few prompts' completions."""

    prompts: int
    seconds: dict[str, float]
    """For one prompt's completions, by function."""
    unread: list[str]
    """Code that nobody at the site allows, and that was not run."""


@dataclass(frozen=True, kw_only=True)
class SeenMemory(Record):
    """Bytes that a round takes at its peak beside the model, and that there are."""

    peak: int
    free: int


@dataclass(frozen=True, kw_only=True)
class SeenRound(Record):
    """One rehearsed batch."""

    reward: float
    zero_signal: float
    """Share of groups whose completions all have one reward."""
    round_s: float
    """Of a whole local round as it went."""
    order_s: float
    """Of an order at the most, as a node works it out; 0 where nothing is sized."""


@dataclass(frozen=True, kw_only=True)
class Look(Record):
    """All of it; a fault in the place of what could not be seen, None of what was not asked for or
    could not be looked at for an earlier fault.
    """

    device: Fault | None = None
    """A GPU that is asked for and not there; then nothing else was looked at."""
    prompts: SeenPrompts | Fault | None = None
    columns: list[Fault] = field(default_factory=list)
    """Columns that rewards cannot do without and no prompt has."""
    model: SeenModel | Fault | None = None
    reward: SeenReward | Fault | None = None
    memory: SeenMemory | Fault | None = None
    round: SeenRound | Fault | None = None
