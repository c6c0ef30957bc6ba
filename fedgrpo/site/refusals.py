"""Why a node refuses, as codes that travel: what each means, and what the operator can do.

Adversary: a server that chooses what it asks, and learns from what comes back. A code is all that
leaves a node in the place of an answer. Before a release is charged for, codes follow from the
order, the settings, the site's policy and whether model and rewards load; after it, from public
messages and the state of the machine. No code follows from a prompt.
"""

from __future__ import annotations

from enum import StrEnum

from fedgrpo.ground.errors import PolicyError


class Refusal(StrEnum):
    """Code of a refusal. It is all that a refusing node sends: figures stay in its own log."""

    POLICY_FILE = "policy-file"
    UNIT = "unit"
    NOISE = "noise"
    NOISE_PLACE = "noise-place"
    CLIPPING_NORM = "clipping-norm"
    BUCKET_SIZE = "bucket-size"
    PROTOCOL = "protocol"
    COMMITTEE = "committee"
    MODEL = "model"
    REWARD = "reward"
    CODE = "code"
    METRICS = "metrics"
    HOURS = "hours"
    ROUNDS = "rounds"
    EPSILON = "epsilon"
    SPENT_FILE = "spent-file"
    DECLARED = "declared"
    LONGEST_PROMPT = "longest-prompt"
    ANSWER_TIME = "answer-time"
    UNCHECKED = "unchecked"
    BUSY = "busy"
    SETTINGS = "settings"
    VERSION = "version"
    OUT_OF_TURN = "out-of-turn"
    MESSAGE = "message"
    BOUNDS = "bounds"
    ADAPTER = "adapter"
    BASIS = "basis"
    MODEL_LOAD = "model-load"
    REWARD_LOAD = "reward-load"
    LEDGER = "ledger"
    STATE = "state"
    OPENED = "opened"
    FAILED = "failed"
    DROPPED_OUT = "dropped-out"


CURES = {
    Refusal.POLICY_FILE: "the site's policy file cannot be read: ask the site to mend it",
    Refusal.UNIT: "set privacy.unit, and data.unit, to what the site allows",
    Refusal.NOISE: "raise privacy.noise_multiplier",
    Refusal.NOISE_PLACE: "let those add the noise whom the site trusts with it: privacy.noise = "
    "'client', or the members of aggregation.protocol = 'committee'",
    Refusal.CLIPPING_NORM: "lower privacy.clipping_norm",
    Refusal.BUCKET_SIZE: "raise secure.bucket_size",
    Refusal.PROTOCOL: "use a protocol that the site allows",
    Refusal.COMMITTEE: "name members in aggregation.committee to all of whom the site agrees",
    Refusal.MODEL: "train a model (and revision) that the site has approved",
    Refusal.REWARD: "use reward functions that the site has approved",
    Refusal.CODE: "use built-in losses, advantages, methods and metrics, or ones that the site has "
    "approved",
    Refusal.METRICS: "shorten privacy.metrics to what the site lets leave, or have them noised "
    "before the server sees them (privacy.noise = 'client', or a committee)",
    Refusal.HOURS: "run within the site's hours",
    Refusal.ROUNDS: "the site has answered all rounds that it allows: ask it for more",
    Refusal.EPSILON: "the site's privacy budget is spent: go on without it, or agree on another",
    Refusal.SPENT_FILE: "the site cannot keep its account: ask it to look at its own log",
    Refusal.DECLARED: "lower data.min_prompts to what the site declares, or go on without it",
    Refusal.LONGEST_PROMPT: "raise grpo.max_prompt_length to the longest prompt that the site "
    "declares",
    Refusal.ANSWER_TIME: "ask for less work a round, or ask the site for a longer answer_after_s, "
    "below federation.round_timeout_s",
    Refusal.UNCHECKED: "ask the site to run 'fedgrpo policy check' on its prompts",
    Refusal.BUSY: "ask again when the site has answered what it was asked before",
    Refusal.SETTINGS: "give server and nodes the same valid settings, within the bounds of "
    "docs/settings.md",
    Refusal.VERSION: "install the same version of fedgrpo on server and nodes",
    Refusal.OUT_OF_TURN: "ask for each round once and in its turn",
    Refusal.MESSAGE: "send what the protocol asks for; the site's own log says what does not fit",
    Refusal.BOUNDS: "send finite values within bounds: an optimiser step diverged",
    Refusal.ADAPTER: "use the same base model and [adapter] settings everywhere, and keep the "
    "frozen basis within a run",
    Refusal.BASIS: "go on: the node has lost the frozen basis, and gets it with the next order",
    Refusal.MODEL_LOAD: "name a model that the site's machine can load",
    Refusal.REWARD_LOAD: "name reward functions and metrics that the site's machine can load",
    Refusal.LEDGER: "show the member a ledger that extends the one that it has signed",
    Refusal.STATE: "ask the site to look at its own log: its disk or its keys fail",
    Refusal.OPENED: "go on with the next round: this one counts as released",
    Refusal.FAILED: "ask the site to look at its own log",
    Refusal.DROPPED_OUT: "lower simulation.droppers or simulation.dropout",
}
"""What the operator can do about each."""


def refused(code: Refusal, problem: str, *, cure: str = "") -> PolicyError:
    """Make the error of a refusal: the problem is for the site's own log, and the code travels."""
    return PolicyError(problem, code=code, cure=cure or CURES[code])
