"""Texts that end a completion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fedgrpo.ground.mishaps import pass_on_interrupt

MARGIN = 4
"""Tokens that are looked at besides one for each byte that the longest text may take."""


class Stops:
    """Tells at which token a completion has come to one of some texts.

    It is a function of the last tokens alone, so that a completion ends at the same one beside any
    others and however often it is looked at. Texts of special tokens count; the prompt does not.

    Parameters
    ----------
    tokenizer:
        Decodes.
    texts:
        None of them empty.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        self._tokenizer, self._texts = tokenizer, tuple(texts)
        self._window = max(len(text.encode()) for text in texts) + MARGIN

    def never(self) -> Stops:
        """The same work, to no effect: what a trial takes the time of."""
        copy = Stops(self._tokenizer, self._texts)
        copy._texts = ()
        return copy

    def reached(self, tokens: Tensor, lengths: Sequence[int], since: Sequence[int]) -> list[int]:
        """Length at which each row first ends in a text; 0 if it does not.

        Parameters
        ----------
        tokens:
            int64, shape (R, T).
        lengths, since:
            R numbers each: tokens that a row has, and how many have been looked at.
        """
        rows = tokens.tolist()
        ends = [range(a + 1, b + 1) for a, b in zip(since, lengths, strict=True)]
        windows = [
            row[max(0, end - self._window) : end]
            for row, own in zip(rows, ends, strict=True)
            for end in own
        ]
        found = iter([self._ends(text) for text in self._decoded(windows)])
        hits = [[end for end in own if next(found)] for own in ends]
        return [own[0] if own else 0 for own in hits]

    def marks(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """True at the token of each row, among its first ``lengths``, that completes a text: bool,
        shape (R, T).
        """
        ends = self.reached(tokens, lengths.tolist(), [0] * len(tokens))
        columns = torch.arange(1, tokens.shape[1] + 1)
        found = columns == torch.tensor(ends, dtype=torch.long)[:, None]
        return found.to(tokens.device)

    def _ends(self, text: str) -> bool:
        return any(each in text for each in self._texts)

    def _decoded(self, windows: Sequence[list[int]]) -> list[str]:
        """Text of each; empty where it cannot be told, which is that row's affair."""
        try:
            return self._batch(windows)
        except BaseException as error:
            pass_on_interrupt(error)
            return [self._alone(window) for window in windows]

    def _alone(self, window: list[int]) -> str:
        try:
            return self._batch([window])[0]
        except BaseException as error:
            pass_on_interrupt(error)
            return ""

    def _batch(self, windows: Sequence[list[int]]) -> list[str]:
        texts = self._tokenizer.batch_decode(
            list(windows), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return list(texts)
