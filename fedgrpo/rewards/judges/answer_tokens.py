"""Which tokens begin an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from fedgrpo.ground.errors import RewardError


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Find the tokens by which a model can begin each answer.

    Every answer is spelt as it is and capitalised, with and without a space before, because
    tokenizers differ in where a word begins. A first token that two answers share (a lone space, or
    the 1 of 1 and 10) tells nothing and is left out.

    Parameters
    ----------
    tokenizer:
        The judge's.
    answers:
        k words.

    Returns
    -------
    list of k lists of token ids, none empty, no two sharing an id.

    Raises
    ------
    RewardError
        If nothing is left for an answer.
    """
    first = [_first_tokens(tokenizer, answer) for answer in answers]
    uses = Counter(token for tokens in first for token in tokens)
    found = [sorted(token for token in tokens if uses[token] == 1) for tokens in first]
    for answer, tokens in zip(answers, found, strict=True):
        if not tokens:
            raise RewardError(
                f"the judge's tokenizer has no token that begins {answer!r} and no other answer",
                cure="choose answers that begin differently, or another judge",
            )
    return found


def _first_tokens(tokenizer: PreTrainedTokenizerBase, answer: str) -> set[int]:
    spellings = {answer, answer.capitalize()}
    spellings |= {f" {spelling}" for spelling in spellings}
    encoded = [tokenizer(spelling, add_special_tokens=False)["input_ids"] for spelling in spellings]
    return {ids[0] for ids in encoded if ids and ids[0] != tokenizer.unk_token_id}
