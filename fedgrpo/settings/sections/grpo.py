"""Settings of local training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator, model_validator

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import brings_code
from fedgrpo.settings.bounds import TEXT
from fedgrpo.settings.sections.presets import PRESETS
from fedgrpo.settings.sections.section import Section
from fedgrpo.settings.sections.table import Texts, read_texts

ANSWER_TOKENS = 256
"""Longest completion of a model that is not the shipped one, where nothing is set: as in TRL."""

FROM_PRESET = frozenset(
    {
        "advantage",
        "loss",
        "clip_low",
        "clip_high",
        "kl",
        "kl_weight",
        "max_resamples",
        "overlong_share",
        "credit",
        "guidance",
        "entropy_weight",
    }
)
"""Settings of ``grpo`` that ``grpo.preset`` fills where they are not set. Flower's run
configuration names every key, so an empty text stands for "not set".
"""


MAY_BE_UNSET = FROM_PRESET | {"max_completion_length"}
"""All for which an empty text stands for "not set": those, and what follows the model."""

STOPS, STOP_LENGTH = 16, 100
"""Most texts that end a completion, and most characters of one: each token is held against them."""


class GRPOSettings(Section):
    """Local training: group relative policy optimisation (arXiv 2402.03300)."""

    preset: str = ""
    """A published method, such as ``dapo``: fills advantage, loss, clip, KL, max_resamples and
    overlong_share where they are not set. docs/algorithms.md lists them. A scenario may name one
    of a file.
    """
    advantage: str = "grpo"
    """A built-in name, ``package.module:function`` or ``path/to/file.py:function``, with options,
    ``name(option=1.5)``: see docs/algorithms.md.
    """
    credit: str = "group"
    """How tokens share a completion's credit: ``group`` (all alike), ``gae`` (a value head: PPO) or
    ``vine`` (fresh rollouts: VinePPO), or one of a module or file. Prompt-level privacy takes
    ``group``.
    """
    guidance: str = "none"
    """Where completions come from besides the plain prompt: ``none``, ``critique`` (the best
    refinement after a critique joins each group) or ``contexts`` (sampled with the answer in sight,
    less and less so), or one of a module or file. Prompt-level privacy takes ``none``.
    """
    answer_column: str = "answer"
    """Column with the reference answer that guidance shows."""
    critique_prompt: str = (
        "{prompt}\n\nPrevious solution:\n{completion}\n\nCritique: {critique}\n\n"
        "Answer again. Correct what the critique names, and reason step by step.\n"
    )
    """How ``critique`` hands a completion back."""
    passing_reward: float = 1.0
    """Least weighted reward at which ``critique`` and ``evaluation.pass_at`` call a completion
    correct.
    """
    informed_prompt: str = "Reference answer: {answer}\n\n{prompt}"
    """How ``contexts`` shows the answer."""
    informed_start: float = 0.5
    """Power of the plain prompt's probabilities at the start of ``contexts``; the informed prompt
    has the rest.
    """
    informed_batches: int = 50
    """Batches over which that power goes to 1 in equal steps."""
    discount: float = 1.0
    """Gamma of ``gae``."""
    gae_lambda: float = 0.95
    """Lambda of ``gae``: 0 trusts the value head, 1 the outcome."""
    value_learning_rate: float = 1e-2
    """AdamW rate of the value head."""
    value_clip: float = 0.5
    """Furthest that a value moves on one batch before its loss stops helping it."""
    vine_rollouts: int = 4
    """Fresh completions that value a step's start under ``vine`` (9 in the paper)."""
    vine_step: int = 64
    """Longest step of ``vine`` in tokens; a line end ends one too."""
    loss: str = "dr_grpo"
    """Named like an advantage, with options: ``sapo(positive=1.1)``."""
    steps: int = 1
    """Optimiser steps a round. Prompt-level privacy takes exactly 1."""
    passes: int = 1
    """Times that each completion is used. Each batch serves passes x minibatches optimiser steps.
    """
    minibatches: int = 1
    """Optimiser steps that share out a batch of completions in each pass, by whole prompts."""
    prompts_per_step: int = 24
    """Prompts a step. Under prompt-level privacy, the expected number of units (``data.unit``),
    which are sampled by independent coins.
    """
    group_size: int = 8
    """Completions a prompt."""
    gradient_accumulation_steps: int = 1
    """Parts, by whole prompts, in which a step's gradient is taken. prompts_per_step counts them
    together. Not for prompt-level privacy.
    """
    learning_rate: float = 1e-3
    """Rate of the local optimiser. Prompt-level privacy sends the clipped gradient itself and does
    not use it, nor its schedule and weight decay.
    """
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """How that rate falls over all steps of a run, in a federation those of all rounds."""
    warmup_steps: int = 0
    """Steps before that, over which the rate rises; the first one's is not 0."""
    weight_decay: float = 0.0
    """Share of itself, times the rate, that a step takes from the adapter (arXiv 1711.05101)."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """Local optimiser. With few coordinates and one step, AdamW sends little but signs; sgd sends
    the gradient, of which clipping keeps the direction.
    """
    clip_low: float = 0.0
    """The probability ratio is clipped at 1 - clip_low. 0 takes the loss's own."""
    clip_high: float = 0.0
    """The probability ratio is clipped at 1 + clip_high. 0 takes the loss's own."""
    kl: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL divergence in the penalty."""
    kl_weight: float = 0.0
    """Weight of the KL divergence to the round's global adapter."""
    entropy_weight: float = 0.0
    """Weight of a bonus for the policy's entropy at each token, in nats."""
    max_resamples: int = 0
    """Times that groups without signal are replaced by fresh prompts before a step (DAPO). Not for
    prompt-level privacy.
    """
    overlong_share: float = 0.0
    """Last share of max_completion_length over which a punishment grows to 1 (DAPO). If it is not
    0, truncated completions take part in the update.
    """
    temperature: float = 1.0
    """Sampling temperature."""
    top_k: int = 0
    """Most likely tokens that a token is sampled from; 0 takes all. Whoever samples, in evaluation
    too, and whoever scores mean the same distribution: of what top_k, top_p and min_p leave.
    """
    top_p: float = 1.0
    """Probability of the fewest most likely tokens that a token is sampled from."""
    min_p: float = 0.0
    """Least probability of a token that may be sampled, as a share of the most likely one's."""
    repetition_penalty: float = 1.0
    """What the logits of tokens that prompt or completion has already are divided by if positive,
    multiplied by if negative (arXiv 1909.05858). Costs a mark for each token of the vocabulary
    wherever a token is sampled or scored. Not for guidance by contexts.
    """
    stop_strings: Texts = ""
    """Texts at which a completion ends: a list, at most 16 of 100 characters, or one text as it is.
    They stay in the completion, and may be those of special tokens.
    """
    max_prompt_length: int = 512
    """Tokens. A longer prompt is refused, not cut."""
    max_completion_length: int = 10
    """Tokens. A completion without an end by then is truncated and takes no part in the update
    (but see overlong_share). Where it is not set it follows the model: 10 for ``tiny``, whose tasks
    need no more, 256 for any other.
    """
    tokens_per_batch: int = 16384
    """Tokens (with padding) held in one forward and backward pass."""
    memory_gb: float = 0.0
    """What the rows of a sampling may take, in GiB: as many prompts as fit are decoded at once, in
    training and in evaluation. 0 takes half of what is free. Not for prompt-level privacy, whose
    shapes follow from public figures alone.
    """
    engine: str = "own"
    """What samples completions: ``own``, or one of a module or file. It is called with the adapter
    and gives an object with ``sample(prompts, plan) -> Rollout``. Prompt-level privacy takes
    ``own``, the only one that is held against its test of isolation.
    """
    gradient_checkpointing: bool = False
    """Whether an update computes each layer's activations again, in the place of keeping them: less
    memory, a third more time. Not for prompt-level privacy.
    """
    max_grad_norm: float = 1.0
    """L2 norm at which a local step's gradient is clipped (without prompt-level privacy)."""

    def following(self, *, shipped: bool) -> GRPOSettings:
        """The same, with a longest completion that fits the shipped model or any other, if none is
        set.
        """
        if shipped or "max_completion_length" in self.model_fields_set:
            return self
        return self.model_copy(update={"max_completion_length": ANSWER_TOKENS})

    def stop_texts(self) -> tuple[str, ...]:
        """Texts at which a completion ends."""
        return read_texts(self.stop_strings)

    @field_validator("stop_strings")
    @classmethod
    def _few_and_short(cls, value: str) -> str:
        texts = read_texts(value)
        if len(texts) > STOPS or any(len(text) > STOP_LENGTH for text in texts):
            raise ValueError(f"takes at most {STOPS} texts of at most {STOP_LENGTH} characters")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        chosen = {k: v for k, v in given.items() if k not in MAY_BE_UNSET or v != ""}
        name = given.get("preset")
        if not isinstance(name, str) or not 0 < len(name) <= TEXT:
            return chosen
        if brings_code(name):
            # A node reads settings that a server chose: that must run nothing.
            raise SettingsError(
                f"grpo.preset = {name!r} can be read from a scenario only, where it is filled in",
                cure="name it in a scenario file or with --set, or write its settings out",
            )
        return {**PRESETS[name].settings(), **chosen}
