"""A language model as judge, through the probabilities of its next token: no generation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from fedgrpo.ground.errors import RewardError
from fedgrpo.model.base import BaseModel
from fedgrpo.model.encoding import encode_prompt
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.judges.answer_tokens import answer_tokens
from fedgrpo.rewards.judges.forward import certainties, last_logits
from fedgrpo.rewards.judges.limits import check_questions

Floats = NDArray[np.float64]

Standing = Literal["base", "round", "policy"]
"""Who judges: the base model with the adapter off, the adapter as the round began, or as it is now.
"""


class TokenJudge:
    """Asks a model questions whose answer is one token and reads how likely each answer is.

    Judging costs one forward pass a question, of which neighbouring questions share what they begin
    with: put what changes least first. It is deterministic; ties are rare because
    probabilities are continuous. The base model is the default judge: what is trained cannot talk
    it round. It can still be talked to: a completion may contain "answer yes", so hold a judged
    reward against a verifiable one.

    Neither standing changes which parameters are trained or frozen (PEFT's ``disable_adapter``
    would thaw a frozen A).

    Parameters
    ----------
    model:
        Who judges. None takes over the trainer's adapter when :meth:`bind` is called.
    at:
        See :data:`Standing`. Without an adapter all three are the same.
    tokens_per_batch:
        Tokens that go through the model together, padding included.

    Attributes
    ----------
    most_tokens:
        That a question may have; None takes any.

    Raises
    ------
    RewardError
        If ``model`` is a base model that an adapter was put on.
    """

    def __init__(
        self,
        model: BaseModel | Adapter | None = None,
        *,
        at: Standing = "base",
        tokens_per_batch: int = 16384,
    ) -> None:
        if isinstance(model, BaseModel) and _is_adapted(model):
            raise RewardError(
                "the judge's base model carries an adapter, which would judge with it",
                cure="give the judge the Adapter, or a base model of its own",
            )
        self.at = at
        self.most_tokens: int | None = None
        self.tokens_per_batch = tokens_per_batch
        self._given = model
        self._base = model.base if isinstance(model, Adapter) else model
        self._adapter = model if isinstance(model, Adapter) else None
        self._round = model.vector() if isinstance(model, Adapter) else None

    def bind(self, adapter: Adapter) -> None:
        """Judge with this adapter's base model from now on; its present values are the round's.

        A judge that was given another model keeps it.
        """
        if self._given is None or self._given is adapter:
            self._base, self._adapter, self._round = adapter.base, adapter, adapter.vector()

    def yes(self, questions: Sequence[str]) -> Floats:
        """p(yes) / (p(yes) + p(no)) as answer to each question, shape (n,)."""
        return self.probabilities(questions, ("yes", "no"))[:, 0]

    def score(self, questions: Sequence[str], top: int = 5) -> Floats:
        """Expected score, sum k p(k) / sum p(k) over k = 1 to ``top``, shape (n,).

        Raises
        ------
        RewardError
            If ``top`` is not 2 to 9: a score must be one digit, because "10" begins like "1".
        """
        if not 2 <= top <= 9:
            raise RewardError(f"a judge's score runs to {top}", cure="choose 2 to 9")
        scores = np.arange(1, top + 1)
        return self.probabilities(questions, [str(k) for k in scores]) @ scores

    def probabilities(self, questions: Sequence[str], answers: Sequence[str]) -> Floats:
        """Probability of each answer, given that it is one of them.

        Parameters
        ----------
        questions:
            n texts; they go through the tokenizer's chat template, if it has one.
        answers:
            k words. Each stands for the first tokens of its spellings that no other answer shares.

        Returns
        -------
        float64, shape (n, k), rows summing to 1.

        Raises
        ------
        RewardError
            If the judge has no model yet, or its tokenizer cannot tell the answers apart.
        """
        base = self.base
        tokens = answer_tokens(base.tokenizer, answers)
        is_chat = base.tokenizer.chat_template is not None or bool(base.chat.template)
        asked = [[{"role": "user", "content": text}] if is_chat else text for text in questions]
        encoded = [encode_prompt(base.tokenizer, question, base.chat) for question in asked]
        check_questions(encoded, self.most_tokens)
        flat = [token for spellings in tokens for token in spellings]
        with self.standing():
            logits = last_logits(base, encoded, flat, self.tokens_per_batch)
        parts = logits.split([len(spellings) for spellings in tokens], 1)
        likely = torch.stack([part.logsumexp(1) for part in parts], 1)
        probabilities: Floats = likely.double().softmax(1).numpy()
        return probabilities

    def certainty(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """Mean over a completion's tokens of KL(uniform || p), in nats; None for an empty one.

        Parameters
        ----------
        prompts, completions:
            Token ids, n each.
        """
        base = self.base
        check_questions(
            [[*p, *c] for p, c in zip(prompts, completions, strict=True)], self.most_tokens
        )
        with self.standing():
            found: Tensor = certainties(base, prompts, completions, self.tokens_per_batch)
        return [
            float(value) if ids else None
            for value, ids in zip(found.tolist(), completions, strict=True)
        ]

    def seconds(self, tokens: int, questions: int, ends: int) -> float:
        """Measured time for some made-up questions of so many tokens about one completion, which
        differ in as many tokens at their ends, and for as many tokens' certainty.
        """
        vocabulary = len(next(self.base.model.get_input_embeddings().parameters()))
        rng = np.random.default_rng(0)
        shared = rng.integers(1, vocabulary, max(1, tokens - ends)).tolist()
        asked = [shared + rng.integers(1, vocabulary, ends).tolist() for _ in range(questions)]
        started = time.monotonic()
        with self.standing():
            if self.at == "policy":
                certainties(self.base, [shared[:1]], [asked[0][1:]], self.tokens_per_batch)
            else:
                last_logits(self.base, asked, [0, 1], self.tokens_per_batch)
        return time.monotonic() - started

    @property
    def base(self) -> BaseModel:
        """The model that judges.

        Raises
        ------
        RewardError
            If there is none yet.
        """
        if self._base is None:
            raise RewardError(
                "a judged reward has no model",
                cure="use it in a trainer, which lends its own, or give TokenJudge a model",
            )
        return self._base

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Put the judge's own values in place for a while."""
        if self._adapter is None or self._round is None or self.at == "policy":
            yield
        elif self.at == "base":
            with self._adapter.off():
                yield
        else:
            with self._adapter.at(self._round):
                yield


def _is_adapted(base: BaseModel) -> bool:
    return any(isinstance(module, BaseTunerLayer) for module in base.model.modules())
